"""The organizational unit of an account type: made, renamed and deleted in AWS as the database has the type."""

import logging
from functools import partial
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server import leases
from server.account_types.models import AccountType, AccountTypeState
from server.accounts.models import Account, AccountStatus
from server.jobs import Job
from server.leases import LASTING, NO_ERROR, change
from server.tenancies.models import Tenancy
from workers.account_types import calls, outcomes
from workers.assurance.units import NAME_TAKEN
from workers.aws.session import Aws
from workers.lease import Work
from workers.steps import Step, Steps

UNIT: Final[Work[AccountType]] = Work(
    name="account type",
    prefix="typ",
    model=AccountType,
    job=Job.KEEP_ORGANIZATIONAL_UNIT,
    live=AccountType.next_attempt_at.is_not(None),
    hold=partial(leases.hold, model=AccountType),
    claimed={},
)

logger = logging.getLogger(__name__)


class Units(Steps[AccountType]):
    """Keeps the units of account types with the clients of one worker."""

    def __init__(self, engine: AsyncEngine, aws: Aws) -> None:
        super().__init__(engine, aws, next_step)


async def next_step(session: AsyncSession, account_type: AccountType) -> Step[AccountType] | None:
    """What to ask of AWS next; None when the unit is as it should be, or an error stands in the way."""
    if account_type.lease_until is None:
        return None
    tenancy = await session.get_one(Tenancy, account_type.tenancy_id, populate_existing=True)
    call, is_free = None, account_type.error_class not in LASTING or _is_as_wanted(account_type)
    if is_free:
        is_going = account_type.state is AccountTypeState.DELETING
        choose = _call_of_deletion if is_going else _call
        call = await choose(session, account_type, tenancy)
    if call is None:
        if is_free:
            # Of a call for which there is no reason any more, as when a setup has made the unit meanwhile.
            change(account_type, **NO_ERROR)
        await leases.rest(session, account_type)
        logger.info("account type %s: its unit is as it can be", label(account_type))
        return None
    return Step(
        call,
        account_type,
        tenancy,
        f"account type {label(account_type)}",
        {"name": account_type.name, "email": "", "retry": "call updateAccountType or deleteAccountType again"},
        partial(outcomes.keep_error, asked=outcomes.Asked.of(account_type)),
    )


def _is_as_wanted(account_type: AccountType) -> bool:
    """Whether AWS has the unit, under the type's name, of a type that stays."""
    is_there = account_type.organizational_unit_id is not None and account_type.aws_name == account_type.name
    return is_there and account_type.state is AccountTypeState.ACTIVE


def label(account_type: AccountType) -> str:
    """The type for a log line: its name, and the id that the API shows, so that one finds the other."""
    return f"{account_type.name!r} (typ_{account_type.id.hex})"


async def _call(session: AsyncSession, account_type: AccountType, tenancy: Tenancy) -> "partial[calls.Coming] | None":
    workloads, unit_id = tenancy.workloads_ou_id, account_type.organizational_unit_id
    # Without a place for the unit this is called again when there is one.
    if account_type.state is not AccountTypeState.ACTIVE or account_type.foundation or workloads is None:
        return None
    if unit_id is None:
        if account_type.aws_name is None:
            # Committed before the call: should its answer be lost, the unit is looked for under this name.
            account_type.aws_name = account_type.name
            await session.flush()
        return partial(calls.create, account_type, workloads)
    # A call whose answer was lost may have given it another name, from which somebody has turned back since.
    is_name_known = account_type.called_at is None
    if account_type.aws_name != account_type.name or not is_name_known:
        aside = f"{account_type.name} ({account_type.id.hex[-12:]})"
        # One of the tenancy has the name still, and may wait for that of this one: so this one makes room meanwhile.
        has_to_wait = account_type.error_code == NAME_TAKEN and account_type.aws_name != aside
        name = aside if has_to_wait else account_type.name
        return partial(calls.rename, account_type, name, unit_id, workloads)
    return None


async def _call_of_deletion(
    session: AsyncSession, account_type: AccountType, tenancy: Tenancy
) -> "partial[calls.Coming] | None":
    if account_type.organizational_unit_id is not None:
        closed = select(Account.aws_account_id).where(
            Account.tenancy_id == tenancy.id,
            Account.account_type_id == account_type.id,
            Account.status == AccountStatus.CLOSED,
        )
        suspended = tenancy.suspended_ou_id
        going = {} if suspended is None else {str(each): suspended for each in await session.scalars(closed)}
        return partial(calls.delete, account_type, account_type.organizational_unit_id, going)
    if account_type.aws_name is not None and tenancy.workloads_ou_id is not None:
        return partial(calls.find, account_type, tenancy.workloads_ou_id)
    # AWS was never asked for its unit.
    await outcomes.keep_deleted(session, account_type)
    return None
