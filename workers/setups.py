"""Setups as leased work: which of them a worker may take up now, and whose turn it is to be created.

AWS creates five accounts of an organization at a time. The others wait in the database, where waiting costs nothing:
they are claimed in the order of their requests, each when one before it has been created or has to wait for something
else. Nobody hands turns out, so none can be lost: who has one follows from the rows as they are.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, func, literal, not_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from server.accounts.models import Account, AccountRole
from server.assurance.models import LIVE, CreateIntent, IntentState, Setup, SetupStatus
from server.assurance.service import hold
from server.jobs import Job, enqueue
from workers.aws.session import CONCURRENT_CREATIONS
from workers.lease import Work

# For so long a request that AWS has acknowledged is taken to be under way, though nobody hears of it.
ACKNOWLEDGED_SECONDS = 900.0


def _is_to_be_created() -> ColumnElement[bool]:
    """AWS has not been asked for the setup's account."""
    asked = exists().where(CreateIntent.account_id == Setup.account_id, is_asked())
    return and_(exists().where(Account.id == Setup.account_id, _has_no_number()), not_(asked))


def _before_it() -> ColumnElement[int]:
    """How many creations of the tenancy come before the setup's; counted no further than it matters."""
    now = func.now()
    other = aliased(Setup)
    earlier = tuple_(other.requested_at, other.id) < tuple_(Setup.requested_at, Setup.id)
    before = (
        select(literal(1))
        .select_from(other)
        .join(Account, Account.id == other.account_id)
        .outerjoin(CreateIntent, CreateIntent.account_id == other.account_id)
        .where(
            other.tenancy_id == Setup.tenancy_id,
            other.id != Setup.id,
            _has_no_number(),
            or_(
                and_(
                    other.status.in_(LIVE),
                    or_(is_asked(), other.lease_until >= now, and_(other.next_attempt_at <= now, earlier)),
                ),
                # Nobody looks what became of those whose setup has failed.
                and_(is_asked(), is_recent(now)),
            ),
        )
        .correlate(Setup)
        .limit(CONCURRENT_CREATIONS)
        .subquery()
    )
    return select(func.count()).select_from(before).scalar_subquery()


def _has_no_number() -> ColumnElement[bool]:
    # The management account is there before Freehold.
    return and_(Account.aws_account_id.is_(None), Account.role != AccountRole.MANAGEMENT)


def is_asked() -> ColumnElement[bool]:
    """Of an intent: AWS has been asked for the account, and what became of it is not written yet."""
    return CreateIntent.state.in_((IntentState.CALLING, IntentState.REQUESTED))


def is_recent(now: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Of an intent: AWS may still be at work on it, whether or not anybody looks."""
    return CreateIntent.called_at > now - timedelta(seconds=ACKNOWLEDGED_SECONDS)


SETUP: Work[Setup] = Work(
    name="setup",
    prefix="set",
    model=Setup,
    job=Job.RUN_SETUP,
    live=Setup.status.in_(LIVE),
    hold=hold,
    claimed={"status": SetupStatus.RUNNING},
    in_turn=or_(not_(_is_to_be_created()), _before_it() < CONCURRENT_CREATIONS),
)


async def wake_next_creation(session: AsyncSession, tenancy_id: UUID, ended: UUID) -> None:
    """Wake the setup whose turn it is now that the one with the id `ended` has its account."""
    due = (
        select(Setup.id)
        .where(Setup.tenancy_id == tenancy_id, *SETUP.due, _is_to_be_created())
        .order_by(Setup.requested_at, Setup.id)
        .limit(1)
    )
    setup_id = await session.scalar(due)
    if setup_id is not None:
        await enqueue(session, tenancy_id, Job.RUN_SETUP, setup_id, attempt=f"after.{ended}")
