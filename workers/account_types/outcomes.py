"""What is written about an account type when AWS has answered, by the holder of its lease.

The type is locked; what is attached to it comes after that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.account_types.models import AccountType, AccountTypeState
from server.accounts.models import Account
from server.leases import NO_ERROR, StageError, StageErrorClass, change, defer
from server.policies.service import forget_account_type
from workers.assurance.units import NAME_TAKEN, name_taken, remember_unit

NOT_EMPTY = "OrganizationalUnitNotEmptyException"
# How many of what is in the way are named.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call to AWS was about, as it was when the call was chosen: its error is written onto nothing else."""

    name: str
    state: AccountTypeState
    # How often the type had been woken by then.
    hint_number: int

    @classmethod
    def of(cls, account_type: AccountType) -> "Asked":
        return cls(account_type.name, account_type.state, account_type.hint_number)


async def keep_on(session: AsyncSession, account_type: AccountType) -> None:
    """Nothing is to be written: the next step follows."""
    account_type.attempts = 0


async def keep_unit(
    session: AsyncSession, account_type: AccountType, *, unit_id: str, asked: Asked, delay: timedelta
) -> None:
    """AWS has the unit under this id, unless that is the one of another type."""
    assert account_type.aws_name is not None, "written before the call"
    name = account_type.aws_name
    own = await remember_unit(session, account_type.tenancy_id, account_type.id, unit_id)
    await session.refresh(account_type)
    if own is not None:
        change(account_type, attempts=0, **NO_ERROR)
    else:
        await keep_error(session, account_type, asked=asked, error=name_taken(name).error, delay=delay)


async def keep_found(session: AsyncSession, account_type: AccountType, *, unit_id: str | None) -> None:
    """What is to be deleted has this unit, or none."""
    if unit_id is not None:
        await remember_unit(session, account_type.tenancy_id, account_type.id, unit_id)
        await session.refresh(account_type)
    if account_type.organizational_unit_id is None:
        await keep_deleted(session, account_type)


async def keep_renamed(session: AsyncSession, account_type: AccountType, *, name: str) -> None:
    """The unit has the name; somebody may have renamed the type since the call."""
    change(account_type, aws_name=name, attempts=0, **NO_ERROR)


async def keep_missing(session: AsyncSession, account_type: AccountType, *, unit_id: str) -> None:
    """Somebody has deleted this unit in AWS: unless that is done by now, it is to be made anew."""
    if account_type.organizational_unit_id == unit_id:
        change(account_type, organizational_unit_id=None, aws_name=None)


async def keep_name_taken(
    session: AsyncSession, account_type: AccountType, *, name: str, holder: str | None, asked: Asked, delay: timedelta
) -> None:
    """AWS has another unit of the name: `holder`, or one that was gone by the time somebody looked."""
    error = name_taken(name).error
    if holder is not None and not await _is_of_another(session, account_type, name, holder):
        message = (
            f"AWS has a unit named {name!r} that belongs to no account type. Rename or delete it there, or give the "
            "type another name; updateAccountType with the same name tries again."
        )
        error = StageError(NAME_TAKEN, message, StageErrorClass.NEEDS_PERSON)
    await keep_error(session, account_type, asked=asked, error=error, delay=delay)


async def _is_of_another(session: AsyncSession, account_type: AccountType, name: str, unit_id: str) -> bool:
    # The one that was asked for under the name has the unit, though its answer with the id is not here yet.
    under_way = func.lower(AccountType.aws_name) == name.lower()
    of_another = exists().where(
        AccountType.tenancy_id == account_type.tenancy_id,
        AccountType.id != account_type.id,
        or_(AccountType.organizational_unit_id == unit_id, under_way),
    )
    return bool(await session.scalar(select(of_another)))


async def keep_not_empty(
    session: AsyncSession,
    account_type: AccountType,
    *,
    accounts: Sequence[str],
    units: Sequence[str],
    asked: Asked,
    delay: timedelta,
) -> None:
    """The unit cannot be deleted: accounts or units are in it. Freehold's own accounts are on their way out of it."""
    rows = select(Account.aws_account_id, Account.name).where(
        Account.tenancy_id == account_type.tenancy_id,
        Account.aws_account_id.in_(accounts),
        Account.account_type_id != account_type.id,
    )
    leaving = {row.aws_account_id: row.name for row in await session.execute(rows)}
    strange = [*(account for account in accounts if account not in leaving), *units]
    where = f"The unit {account_type.aws_name} ({account_type.organizational_unit_id})"
    if strange:
        message = (
            f"{where} holds what is not Freehold's: {_listed(strange)}. Move or delete that in AWS; deleteAccountType "
            "then tries again."
        )
        error = StageError(NOT_EMPTY, message, StageErrorClass.NEEDS_PERSON)
    else:
        message = (
            f"{where} still holds accounts that have left the type: {_listed(sorted(leaving.values()))}. It is deleted "
            "when their setups have moved them; look at those that have failed."
        )
        error = StageError(NOT_EMPTY, message, StageErrorClass.TRANSIENT)
    await keep_error(session, account_type, asked=asked, error=error, delay=delay)


async def keep_deleted(session: AsyncSession, account_type: AccountType) -> None:
    """AWS has no unit of the type any more, and nothing attached to it: the type is gone."""
    change(
        account_type,
        state=AccountTypeState.DELETED,
        organizational_unit_id=None,
        aws_name=None,
        attempts=0,
        **NO_ERROR,
    )
    await session.flush()
    await forget_account_type(session, account_type.tenancy_id, account_type.id)


async def keep_error(
    session: AsyncSession, account_type: AccountType, *, asked: Asked, error: StageError, delay: timedelta
) -> None:
    """A call has ended with an error. Where that passes the lease is given up and the work goes on after `delay`.

    What somebody has asked since the call is tried at once, and has no error of before.
    """
    if (account_type.name, account_type.state) != (asked.name, asked.state):
        return
    change(account_type, **error.columns)
    if error.error_class is StageErrorClass.TRANSIENT:
        await defer(session, account_type, delay, hint_number=asked.hint_number)
    await session.flush()


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join([*names[:NAMED], *([f"{more} more"] if more > 0 else [])])
