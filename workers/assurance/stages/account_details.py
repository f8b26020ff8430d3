"""What names the account in AWS: its name, its sign-in alias, and the contact for security matters."""

from collections.abc import Sequence

from server.accounts.models import Account
from server.accounts.service import with_suffix
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, ask, cis, finding

SECURITY_CONTACT = cis("2.3")
CONTACT_TITLE = "Security"


async def check(run: Run) -> Sequence[Finding]:
    alias = await _alias(run)
    async with run.member("account") as client:
        name = (await client.get_account_information()).get("AccountName")
        try:
            answer = await client.get_alternate_contact(AlternateContactType="SECURITY")
            contact = dict(answer["AlternateContact"])
        except client.exceptions.ResourceNotFoundException:
            contact = {}
    registered = all(contact.get(field) == value for field, value in _wanted_contact(run).items())
    return [
        finding(name == run.account.name, f"the account's name is {name}"),
        finding(run.account.alias in (None, alias), f"the account's alias is {alias}"),
        finding(registered, f"the security contact is {contact.get('EmailAddress')}", SECURITY_CONTACT),
    ]


async def apply(run: Run) -> None:
    async with run.member("account") as client:
        if (await client.get_account_information()).get("AccountName") != run.account.name:
            await client.put_account_name(AccountName=run.account.name)
        contact = _wanted_contact(run)
        await client.put_alternate_contact(
            AlternateContactType="SECURITY",
            Name=contact["Name"],
            Title=CONTACT_TITLE,
            EmailAddress=contact["EmailAddress"],
            PhoneNumber=contact["PhoneNumber"],
        )
    if run.account.alias is not None and await _alias(run) != run.account.alias:
        await _set_alias(run, run.account.alias)


def _wanted_contact(run: Run) -> dict[str, str]:
    return {
        "Name": run.tenancy.security_contact_name,
        "EmailAddress": run.tenancy.security_contact_email,
        "PhoneNumber": run.tenancy.security_contact_phone,
    }


async def _alias(run: Run) -> str | None:
    """The account's alias in AWS; an account has one at most."""
    async with run.member("iam") as iam:
        return next(iter((await iam.list_account_aliases())["AccountAliases"]), None)


async def _set_alias(run: Run, wanted: str) -> None:
    """Give the account the alias, or with a suffix when another AWS account anywhere has it; then it is kept so.

    A new alias replaces the one before (AWS Sign-In User Guide, "Creating, deleting, and listing an alias"). The
    suffixes are the account's own, so that a second attempt knows the alias that the first one made.
    """
    candidates = (wanted, *(with_suffix(wanted, run.account.id.hex[-length:]) for length in (6, 8)))
    present = await _alias(run)
    for alias in candidates:
        if alias == present or await _take_alias(run, alias):
            break
    else:
        raise ask(
            "ALIAS_IN_USE",
            f"Other AWS accounts have the alias {wanted} and its variants. Give this account another alias and retry "
            "the setup.",
        )
    if alias != wanted:
        async with run.write() as session:
            account = await session.get_one(Account, run.account.id)
            account.alias = alias


async def _take_alias(run: Run, alias: str) -> bool:
    async with run.member("iam") as iam:
        try:
            await iam.create_account_alias(AccountAlias=alias)
        except iam.exceptions.EntityAlreadyExistsException:
            return False
        return True


STAGE = Stage(
    name="account_details",
    title="Account details",
    description="Sets the account's name, its sign-in alias and its security contact.",
    controls=(SECURITY_CONTACT,),
    permissions=(
        "account:GetAccountInformation",
        "account:GetAlternateContact",
        "account:PutAccountName",
        "account:PutAlternateContact",
        "iam:CreateAccountAlias",
        "iam:ListAccountAliases",
        "sts:AssumeRole",
    ),
    check=check,
    apply=apply,
)
