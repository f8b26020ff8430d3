"""The rules of account types."""

import re
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server import leases
from server.account_types.models import AccountType, AccountTypeState
from server.errors import Refused, UserError, UserErrorCode, refuse
from server.jobs import Job
from server.leases import NO_ERROR, change
from server.quotas.models import QuotaCode
from server.quotas.service import check_quota

NAME_LENGTHS = range(2, 65)
NAME = re.compile(r"[a-zA-Z0-9+\-=._:/@ ]+")

# The types that every tenancy has. The management account stays at the root of the organization: its type has no OU.
MANAGEMENT = "Management"
FOUNDATION = "Foundation"

NAME_IN_USE = UserError(UserErrorCode.NAME_IN_USE, "Another account type has this name.", ("name",))
RACES: Mapping[str, UserError] = {"uq_account_type_name": NAME_IN_USE}


async def create_account_type(
    session: AsyncSession, tenancy_id: UUID, name: str, *, foundation: bool = False
) -> AccountType:
    """Create an account type and the job that makes its OU. Raises Refused: VALIDATION, NAME_IN_USE, QUOTA_EXCEEDED."""
    await _check_name(session, tenancy_id, name)
    if not foundation:
        await check_quota(session, tenancy_id, QuotaCode.ORGANIZATIONAL_UNITS)
    account_type = AccountType(tenancy_id=tenancy_id, name=name, foundation=foundation)
    session.add(account_type)
    await session.flush()
    if not foundation:
        await wake(session, account_type.id)
    return account_type


async def rename_account_type(session: AsyncSession, tenancy_id: UUID, account_type_id: UUID, name: str) -> UUID:
    """Give an account type another name, and its OU after it; the same name tries again what AWS has refused.

    Raises Refused: NOT_FOUND, TYPE_DELETED, PROTECTED for a foundation type, VALIDATION, NAME_IN_USE.
    """
    found = select(AccountType).where(AccountType.tenancy_id == tenancy_id, AccountType.id == account_type_id)
    account_type = (await session.scalars(found.with_for_update(key_share=True))).one_or_none()
    account_type = usable(account_type, "accountTypeId")
    refuse_foundation(account_type, "renamed")
    if name != account_type.name:
        await _check_name(session, tenancy_id, name, but=account_type.id)
    elif account_type.error_code is None:
        return account_type.id
    change(account_type, name=name, **NO_ERROR)
    await wake(session, account_type.id)
    return account_type.id


def usable(account_type: AccountType | None, *field: str) -> AccountType:
    """The account type that was found and locked. Raises Refused: NOT_FOUND, TYPE_DELETED once it is to go."""
    if account_type is None:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no account type with this id.", *field)
    if account_type.state is not AccountTypeState.ACTIVE:
        how = "is being" if account_type.state is AccountTypeState.DELETING else "was"
        raise refuse(
            UserErrorCode.TYPE_DELETED, f"The account type {account_type.name!r} {how} deleted; choose another.", *field
        )
    return account_type


def refuse_foundation(account_type: AccountType, what: str) -> None:
    """Raise Refused, PROTECTED, for a type that holds Freehold's own accounts."""
    if account_type.foundation:
        raise refuse(
            UserErrorCode.PROTECTED,
            f"The account type {account_type.name!r} holds Freehold's own accounts; it cannot be {what}.",
            "accountTypeId",
        )


async def wake(session: AsyncSession, *account_type_ids: UUID) -> None:
    """Have the types' OUs brought in line now: there is something to do, or to look at again."""
    await leases.wake(session, AccountType, Job.KEEP_ORGANIZATIONAL_UNIT, account_type_ids)


async def _check_name(session: AsyncSession, tenancy_id: UUID, name: str, but: UUID | None = None) -> None:
    if len(name.strip(" ")) not in NAME_LENGTHS or len(name) not in NAME_LENGTHS or not NAME.fullmatch(name):
        raise refuse(
            UserErrorCode.VALIDATION,
            "The name of an account type has 2 to 64 letters, digits, spaces and + - = . _ : / @.",
            "name",
        )
    others = select(AccountType.state).where(
        AccountType.tenancy_id == tenancy_id,
        func.lower(AccountType.name) == name.lower(),
        AccountType.id.is_distinct_from(but),
        AccountType.state != AccountTypeState.DELETED,
    )
    state = (await session.scalars(others)).first()
    if state is AccountTypeState.DELETING:
        message = "The account type of this name is being deleted; its name is free after that."
        raise refuse(NAME_IN_USE.code, message, "name")
    if state is not None:
        raise Refused(NAME_IN_USE)
