"""Looking for an account of our own making, after a CreateAccount call whose answer was lost."""

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from server.accounts.models import Account
from server.assurance.models import CreateIntent
from workers.assurance.run import Run

if TYPE_CHECKING:
    from types_aiobotocore_organizations.type_defs import AccountTypeDef, CreateAccountStatusTypeDef

# AWS's clock and PostgreSQL's may differ by so much.
CLOCK_DIFFERENCE = timedelta(minutes=5)


async def find_request(run: Run, intent: CreateIntent) -> str | None:
    """The id of the newest CreateAccount request, not refused, that may be the one of the intent's last call.

    A request tells its account's name, not its e-mail, and others may use the same name. So those are left out whose
    outcome was known before the call, and those that are known to be of another account; whoever follows what is left
    asks `is_ours` in the end. A refused request has no account that could be asked about, so it proves nothing.
    """
    if intent.called_at is None:
        return None
    since = intent.called_at - CLOCK_DIFFERENCE
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        pages = organizations.get_paginator("list_create_account_status").paginate(States=["IN_PROGRESS", "SUCCEEDED"])
        found = [
            status
            async for page in pages
            for status in page["CreateAccountStatuses"]
            if status.get("AccountName") == intent.account_name
            and status["RequestedTimestamp"] >= since
            and status["Id"] not in intent.past_requests
        ]
    for status in sorted(found, key=lambda status: status["RequestedTimestamp"], reverse=True):
        if not await _is_request_of_another(run, status):
            return status["Id"]
    return None


async def _is_request_of_another(run: Run, status: "CreateAccountStatusTypeDef") -> bool:
    if "AccountId" in status and await stands_for_another(run, status["AccountId"]):
        return True
    of_another = select(CreateIntent.account_id).where(
        CreateIntent.tenancy_id == run.tenancy.id,
        CreateIntent.account_id != run.account.id,
        or_(CreateIntent.request_id == status["Id"], CreateIntent.past_requests.contains([status["Id"]])),
    )
    async with run.read() as session:
        return (await session.scalars(of_another.limit(1))).first() is not None


async def stands_for_another(run: Run, aws_account_id: str) -> bool:
    """Whether another account of the tenancy has this number in AWS."""
    other = select(Account.id).where(
        Account.tenancy_id == run.tenancy.id,
        Account.aws_account_id == aws_account_id,
        Account.id != run.account.id,
    )
    async with run.read() as session:
        return await session.scalar(other) is not None


async def is_ours(run: Run, intent: CreateIntent, aws_account_id: str) -> bool | None:
    """Whether an account that bears the intent's name is the one it asked for; None while AWS does not list it.

    AWS has an e-mail for one account only, and the intent's is no other account's of the tenancy.
    """
    found = [account for account in await _accounts(run) if account["Id"] == aws_account_id]
    if not found:
        return None
    return _has_email(found[0], intent) and not await stands_for_another(run, aws_account_id)


async def find_account(run: Run, intent: CreateIntent) -> str | None:
    """The number of the AWS account that a call of ours has made; None when there is none, or none provably ours.

    Ours is an account of this organization with the intent's e-mail and name, created (not invited) since Freehold
    knows of it, that no other account of the tenancy stands for.
    """
    found = [
        account["Id"]
        for account in await _accounts(run)
        if _has_email(account, intent)
        and account["Name"] == intent.account_name
        and account["JoinedMethod"] == "CREATED"
        and account["JoinedTimestamp"] >= run.account.created_at - CLOCK_DIFFERENCE
    ]
    return found[0] if found and not await stands_for_another(run, found[0]) else None


async def _accounts(run: Run) -> list["AccountTypeDef"]:
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        pages = organizations.get_paginator("list_accounts").paginate()
        return [account async for page in pages for account in page["Accounts"]]


def _has_email(account: "AccountTypeDef", intent: CreateIntent) -> bool:
    return account["Email"].lower() == intent.email.lower()
