"""Comparisons of a tenancy's policies with AWS, as leased work: when one is due, and how it begins and ends.

A comparison goes policy by policy (`drift.py`), and the row holds how far it has come: a worker that dies leaves the
rest to the next one. A policy of which AWS refuses to tell is passed over: the others are compared all the same.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.errors import UserErrorCode, refuse
from server.jobs import Job, enqueue
from server.leases import NO_ERROR, LeaseLost, StageError, change
from server.policies.models import PolicyComparison
from server.tenancies.models import Tenancy


async def ensure_comparison(session: AsyncSession, tenancy_id: UUID) -> None:
    """Have the policies of a tenancy compared from now on."""
    row = insert(PolicyComparison).values(id=tenancy_id, tenancy_id=tenancy_id, next_attempt_at=func.now())
    await session.execute(row.on_conflict_do_nothing(index_elements=[PolicyComparison.tenancy_id]))


async def schedule_comparisons(session: AsyncSession, every: timedelta | None) -> None:
    """Let no tenancy wait longer than `every` for its next one; with None there are only those that are asked for."""
    if every is not None:
        due = func.least(func.coalesce(PolicyComparison.next_attempt_at, func.now()), func.now() + every)
        await session.execute(update(PolicyComparison).values(next_attempt_at=due))


async def request_comparison(
    session: AsyncSession, tenancy_id: UUID, if_older_than_seconds: int | None = None
) -> datetime:
    """Have AWS compared now. Returns the moment since when `checked_at` says that it was.

    With `if_older_than_seconds`, one that began less than so long ago is enough, if AWS refused nothing.
    Raises Refused: VALIDATION, NOT_READY.
    """
    if if_older_than_seconds is not None and if_older_than_seconds < 0:
        raise refuse(UserErrorCode.VALIDATION, "This is a number of seconds, 0 or more.", "ifOlderThanSeconds")
    tenancy = await session.get_one(Tenancy, tenancy_id)
    if tenancy.aws_root_id is None:
        raise refuse(
            UserErrorCode.NOT_READY, "The tenancy's organization is not in AWS yet; there is nothing to compare with."
        )
    await ensure_comparison(session, tenancy_id)
    row = select(PolicyComparison).where(PolicyComparison.tenancy_id == tenancy_id).with_for_update()
    comparison = (await session.scalars(row)).one()
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    if comparison.checked_at is not None and comparison.error_code is None and if_older_than_seconds is not None:
        is_enough = (now - comparison.checked_at).total_seconds() <= if_older_than_seconds
        if is_enough:
            return comparison.checked_at
    comparison.requested_at = comparison.next_attempt_at = now
    comparison.attempts = 0
    comparison.hint_number += 1
    attempt = f"{comparison.lease_token}.{comparison.hint_number}"
    await enqueue(session, tenancy_id, Job.COMPARE_POLICIES, comparison.id, attempt=attempt)
    return now


async def hold(session: AsyncSession, comparison_id: UUID, token: int) -> PolicyComparison:
    """Lock the comparison for a write by the holder of `token`; raises LeaseLost when the lease has moved on."""
    held = select(PolicyComparison).where(
        PolicyComparison.id == comparison_id,
        PolicyComparison.lease_token == token,
        PolicyComparison.next_attempt_at.is_not(None),
    )
    comparison = (await session.scalars(held.with_for_update())).one_or_none()
    if comparison is None:
        raise LeaseLost(f"comparison of tenancy {comparison_id}: lease {token} is no longer current")
    return comparison


async def begin(session: AsyncSession, comparison: PolicyComparison, every: timedelta | None) -> Tenancy | None:
    """Begin, or go on where another worker stopped. None, and the lease is given up, when nothing is to be compared."""
    tenancy = await session.get_one(Tenancy, comparison.tenancy_id, populate_existing=True)
    if tenancy.aws_root_id is None or (every is None and comparison.requested_at is None):
        await _rest(session, comparison, every)
        return None
    if comparison.started_at is None:
        comparison.started_at = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return tenancy


async def finish(session: AsyncSession, comparison: PolicyComparison, every: timedelta | None) -> None:
    """Every policy was compared, or refused. Whoever has asked since this one began gets another one at once."""
    began_at, requested_at = comparison.started_at, comparison.requested_at
    comparison.checked_at = began_at
    if comparison.refused_at is not None and began_at is not None and comparison.refused_at < began_at:
        change(comparison, **NO_ERROR, refused_at=None)
    await _rest(session, comparison, every)
    if requested_at is not None and began_at is not None and requested_at > began_at:
        comparison.requested_at = comparison.next_attempt_at = requested_at


async def keep_refused(session: AsyncSession, comparison: PolicyComparison, error: StageError) -> None:
    """AWS has answered with an error that would be the same again."""
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    change(comparison, **error.columns, refused_at=now, attempts=0)


async def postpone(session: AsyncSession, comparison: PolicyComparison, delay: timedelta) -> None:
    """AWS has answered with an error that passes: it goes on after `delay`."""
    comparison.attempts += 1
    comparison.next_attempt_at = (await session.execute(select(func.clock_timestamp() + delay))).scalar_one()
    comparison.lease_owner = comparison.lease_until = None


async def _rest(session: AsyncSession, comparison: PolicyComparison, every: timedelta | None) -> None:
    comparison.requested_at = comparison.started_at = comparison.after_policy_id = None
    comparison.lease_owner = comparison.lease_until = comparison.next_attempt_at = None
    comparison.attempts = 0
    if every is not None:
        comparison.next_attempt_at = (await session.execute(select(func.clock_timestamp() + every))).scalar_one()
