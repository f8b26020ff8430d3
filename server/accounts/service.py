"""The rules of accounts: what a name, alias and e-mail may be, and how an account is added and changed.

Lengths and characters are those that AWS accepts later, so that nothing is refused minutes after it was typed:
account names as account:PutAccountName, e-mails as organizations:CreateAccount, aliases as iam:CreateAccountAlias.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.account_types.models import AccountType
from server.accounts.models import Account, AccountOrigin, AccountRole, AccountStatus, ActorKind
from server.accounts.tags import TagValue, add_tags, replace_tags, tag_errors
from server.context import Viewer
from server.errors import Refused, UserError, UserErrorCode, refuse
from server.tenancies.models import Tenancy

NAME_LENGTH = 50
NAME = re.compile(r"[ -;=?-~]+")
ALIAS = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?!-)){1,61}[a-z0-9]")
ALIAS_LENGTH = 63
# AWS refuses an alias that could be taken for an account id.
ACCOUNT_ID = re.compile(r"[0-9]{12}")
EMAIL = re.compile(r"[!-?A-~]+@[!-?A-~]+\.[!-?A-~]+")
EMAIL_LENGTHS = range(6, 65)

# What a unique constraint says when two requests meet in it after both have looked.
RACES: Mapping[str, UserError] = {
    "uq_account_name": UserError(UserErrorCode.NAME_IN_USE, "Another account has this name.", ("name",)),
    "uq_account_email": UserError(UserErrorCode.EMAIL_IN_USE, "Another account has this e-mail.", ("email",)),
    "uq_account_alias": UserError(UserErrorCode.ALIAS_IN_USE, "Another account has this alias.", ("alias",)),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked for a change."""

    kind: ActorKind
    name: str
    id: UUID | None = None


SYSTEM = Actor(ActorKind.SYSTEM, "Freehold")


def actor(viewer: Viewer) -> Actor:
    """The viewer as the one who asked."""
    return Actor(ActorKind.API_TOKEN, viewer.token_name, viewer.token_id)


async def add_account(
    session: AsyncSession,
    actor: Actor,
    tenancy: Tenancy,
    account_type: AccountType,
    *,
    name: str,
    alias: str | None = None,
    email: str | None = None,
    tags: Sequence[TagValue] = (),
    role: AccountRole = AccountRole.MEMBER,
    origin: AccountOrigin = AccountOrigin.CREATED,
) -> Account:
    """Add an account to the database; nothing happens in AWS. Raises Refused with every fault of the input.

    Without an alias one is derived from the name; without an e-mail it is made from the tenancy's template.
    """
    errors = [
        *_name_errors(name),
        *([] if alias is None else _alias_errors(alias)),
        *([] if email is None else _email_errors(email)),
        *tag_errors(tags),
    ]
    if errors:
        raise Refused(*errors)
    if role is AccountRole.MEMBER:
        _check_type(account_type)
    errors = await _conflicts(session, tenancy.id, None, name=name, alias=alias, email=email)
    if errors:
        raise Refused(*errors)
    account_id: UUID = (await session.execute(select(func.uuidv7()))).scalar_one()
    account = Account(
        id=account_id,
        tenancy_id=tenancy.id,
        account_type_id=account_type.id,
        name=name,
        # What the management account is called in AWS is not Freehold's to say.
        alias=None
        if role is AccountRole.MANAGEMENT
        else alias or await derive_alias(session, tenancy.id, name, account_id),
        email=email or _email_from_template(tenancy.email_template, account_id),
        role=role,
        origin=origin,
        created_by_kind=actor.kind,
        created_by_id=actor.id,
        created_by_name=actor.name,
    )
    session.add(account)
    await session.flush()
    add_tags(session, account, tags)
    await session.flush()
    return account


async def change_account(
    session: AsyncSession,
    account: Account,
    *,
    name: str | None = None,
    alias: str | None = None,
    email: str | None = None,
    account_type: AccountType | None = None,
    tags: Sequence[TagValue] | None = None,
) -> set[str]:
    """Change what is given of an account in the database. Returns what now differs: columns, and `tags`.

    Raises Refused with every fault of the input; PROTECTED for an account that is gone, or a foundation account's move.
    """
    refuse_gone(account)
    errors = [
        *([] if name is None else _name_errors(name)),
        *([] if alias is None else _alias_errors(alias)),
        *([] if email is None else _email_errors(email)),
        *tag_errors(tags or ()),
    ]
    if errors:
        raise Refused(*errors)
    if account.role is AccountRole.MANAGEMENT and not (name is None and alias is None):
        raise refuse(
            UserErrorCode.PROTECTED,
            "The management account keeps its name and alias: they are its owner's to change, in AWS.",
            "alias" if name is None else "name",
        )
    if account_type is not None and account_type.id != account.account_type_id:
        _check_type(account_type)
        if account.role is not AccountRole.MEMBER:
            raise refuse(
                UserErrorCode.PROTECTED, f"The {account.role.lower()} account stays in its type.", "accountTypeId"
            )
    errors = await _conflicts(session, account.tenancy_id, account.id, name=name, alias=alias, email=email)
    if errors:
        raise Refused(*errors)
    if name is not None and name != account.name and alias is None and _has_derived_alias(account):
        alias = await derive_alias(session, account.tenancy_id, name, account.id)
    wanted = {
        "name": name,
        "alias": alias,
        "email": email,
        "account_type_id": None if account_type is None else account_type.id,
    }
    changed = {key: value for key, value in wanted.items() if value is not None and value != getattr(account, key)}
    for key, value in changed.items():
        setattr(account, key, value)
    what = set(changed)
    if tags is not None and await replace_tags(session, account, tags):
        what.add("tags")
    await session.flush()
    return what


def refuse_gone(account: Account) -> None:
    """Raise Refused, PROTECTED, for an account that was given up or closed."""
    if account.status is AccountStatus.CANCELLED:
        raise refuse(
            UserErrorCode.PROTECTED,
            f"The account {account.name!r} was cancelled and stays as it is; its name, alias and e-mail are free for "
            "another one.",
            "accountId",
        )
    if account.status is AccountStatus.CLOSED:
        raise refuse(
            UserErrorCode.PROTECTED,
            f"The account {account.name!r} is closed in AWS and stays as it is.",
            "accountId",
        )


async def derive_alias(session: AsyncSession, tenancy_id: UUID, name: str, account_id: UUID) -> str:
    """An alias from a name by AWS's rules; with a suffix of the account's own id where the plain one does not serve."""
    stem = hyphenated(name, ALIAS_LENGTH)
    # Two names that make one alias, at once: the second waits here, and then sees the first.
    lock = func.pg_advisory_xact_lock(func.hashtextextended(f"alias {tenancy_id} {stem}", 0))
    await session.execute(select(lock))
    if not _alias_errors(stem) and not await _conflicts(session, tenancy_id, account_id, alias=stem):
        return stem
    return with_suffix(stem or "account", account_id.hex[-6:])


def hyphenated(name: str, length: int) -> str:
    """The ASCII letters and digits of a name, in lower case with hyphens between; at most `length` characters."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:length].strip("-")


def _has_derived_alias(account: Account) -> bool:
    """Whether the alias follows the name, with or without a suffix, rather than having been chosen."""
    stem = re.escape(hyphenated(account.name, ALIAS_LENGTH) or "account")
    return account.alias is None or re.fullmatch(rf"{stem}(-[0-9a-f]{{4,8}})?", account.alias) is not None


def with_suffix(alias: str, suffix: str) -> str:
    """The alias with `-suffix` behind it, shortened so that the whole is still an alias."""
    return f"{alias[: ALIAS_LENGTH - len(suffix) - 1].rstrip('-')}-{suffix}"


def check_email_template(template: str) -> None:
    """Raise Refused unless the template makes a different, valid e-mail for every account."""
    if template.count("{id}") != 1:
        raise refuse(UserErrorCode.VALIDATION, "The e-mail template must contain {id} exactly once.", "emailTemplate")
    if _email_errors(_email_from_template(template, UUID(int=0))):
        raise refuse(
            UserErrorCode.VALIDATION,
            "The e-mail template must make e-mails of at most 64 characters; {id} stands for 32 of them.",
            "emailTemplate",
        )


def _email_from_template(template: str, account_id: UUID) -> str:
    return template.replace("{id}", account_id.hex)


def _check_type(account_type: AccountType) -> None:
    if account_type.foundation:
        raise refuse(
            UserErrorCode.PROTECTED,
            f"The account type {account_type.name!r} holds Freehold's own accounts alone; choose another.",
            "accountTypeId",
        )


def _invalid(message: str, *field: str) -> UserError:
    return UserError(UserErrorCode.VALIDATION, message, field)


def _name_errors(name: str) -> list[UserError]:
    if not name.strip(" "):
        return [_invalid("The name is empty; an account needs a name of 1 to 50 characters.", "name")]
    if len(name) > NAME_LENGTH:
        return [_invalid(f"The name has {len(name)} characters; at most {NAME_LENGTH} are allowed.", "name")]
    if not NAME.fullmatch(name):
        return [_invalid("The name may hold letters, digits, spaces and ASCII punctuation other than < and >.", "name")]
    return []


def _alias_errors(alias: str) -> list[UserError]:
    if ALIAS.fullmatch(alias) and not ACCOUNT_ID.fullmatch(alias):
        return []
    return [
        _invalid(
            "An alias has 3 to 63 lower-case letters, digits and single hyphens, "
            "starts and ends with a letter or digit, and is not a 12-digit number.",
            "alias",
        )
    ]


def _email_errors(email: str) -> list[UserError]:
    if len(email) not in EMAIL_LENGTHS:
        return [_invalid(f"The e-mail has {len(email)} characters; 6 to 64 are allowed.", "email")]
    if not EMAIL.fullmatch(email):
        return [_invalid("The e-mail is malformed; it should look like name@example.com.", "email")]
    return []


async def _conflicts(
    session: AsyncSession,
    tenancy_id: UUID,
    account_id: UUID | None,
    *,
    name: str | None = None,
    alias: str | None = None,
    email: str | None = None,
) -> list[UserError]:
    """The unique values that another account of the tenancy already has."""
    clauses: dict[str, ColumnElement[bool]] = {}
    if name is not None:
        clauses["uq_account_name"] = func.lower(Account.name) == name.lower()
    if alias is not None:
        clauses["uq_account_alias"] = Account.alias == alias
    if email is not None:
        clauses["uq_account_email"] = func.lower(Account.email) == email.lower()
    errors = []
    for constraint, clause in clauses.items():
        others = select(Account.id).where(
            Account.tenancy_id == tenancy_id, Account.status != AccountStatus.CANCELLED, clause
        )
        if account_id is not None:
            others = others.where(Account.id != account_id)
        if (await session.scalars(others)).first() is not None:
            errors.append(RACES[constraint])
    return errors
