"""The sweeper: finds work that is due and that no job was sent for, or whose job was lost. It runs in every worker.

It is plain SQL in a loop of its own, so that nothing it does can be lost with Redis or wait behind a job. What has
expired it deletes.
"""

import asyncio
import logging
import random
import time
from datetime import timedelta

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.account_types.models import AccountType
from server.assurance.models import Setup
from server.database import transaction
from server.idempotency import forget_expired
from server.jobs import Job, Outbox, enqueue
from server.outages import Outage
from server.tenancies.models import Tenancy
from workers.due import is_due
from workers.executor import Executor

TICK_SECONDS = 0.75
BATCH = 200
# How long a wake-up may take to become a claim before another is sent.
HINT_AGE = timedelta(seconds=4)
# How long the job of a new account type may take, and how often it is sent again after that.
UNIT_AGE_SECONDS = 10

logger = logging.getLogger(__name__)


async def sweep_forever(engine: AsyncEngine, executor: Executor) -> None:
    """Sweep every `TICK_SECONDS` until cancelled; what is due goes to this worker's own executor first."""
    outage = Outage(logger, "Nothing is swept")
    while True:
        try:
            await take_due_setups(engine, executor)
            async with transaction(engine) as session:
                await wake_due_setups(session)
                await wake_missing_units(session)
                await forget_expired(session)
        except Exception as error:
            # Whatever it was, it is logged there, and the loop must outlive it.
            await asyncio.sleep(outage.begin(error))
        else:
            outage.end()
            # Workers that started together drift apart.
            await asyncio.sleep(TICK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - no secret


async def take_due_setups(engine: AsyncEngine, executor: Executor) -> None:
    """Offer the executor as many setups that are due as it has slots for: nothing on the way is Redis's to lose."""
    if executor.free <= 0:
        return
    due = select(Setup.id).where(is_due()).order_by(Setup.next_attempt_at).limit(executor.free)
    async with transaction(engine) as session:
        found = list(await session.scalars(due))
    # Workers that see the same setups begin with others.
    random.shuffle(found)
    for setup_id in found:
        await executor.offer(setup_id)


async def wake_due_setups(session: AsyncSession) -> int:
    """Send a wake-up for every setup that is due, held by nobody, and not just woken; returns how many.

    This is for those that found no slot in the worker that sweeps.
    """
    now = func.now()
    due = (
        select(Setup.id)
        .where(
            is_due(),
            # The transaction that requested a setup sent its first wake-up.
            or_(
                func.coalesce(Setup.hinted_at, Setup.requested_at) < now - HINT_AGE,
                func.coalesce(Setup.hinted_at, Setup.requested_at) < Setup.next_attempt_at,
            ),
        )
        .order_by(Setup.next_attempt_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    hinted = (
        update(Setup)
        .where(Setup.id.in_(select(due.c.id)))
        .values(hinted_at=now, hint_number=Setup.hint_number + 1)
        .returning(Setup.id, Setup.tenancy_id, Setup.lease_token, Setup.hint_number)
        .execution_options(synchronize_session=False)
    )
    rows = (await session.execute(hinted)).all()
    for row in rows:
        await enqueue(session, row.tenancy_id, Job.RUN_SETUP, row.id, attempt=f"{row.lease_token}.{row.hint_number}")
    return len(rows)


async def wake_missing_units(session: AsyncSession) -> int:
    """Send the job again that makes the OU of an account type, where it is overdue; returns how many were sent."""
    queued = exists().where(Outbox.job == Job.CREATE_ORGANIZATIONAL_UNIT, Outbox.argument == AccountType.id)
    missing = (
        select(AccountType.id, AccountType.tenancy_id)
        .join(Tenancy, Tenancy.id == AccountType.tenancy_id)
        .where(
            AccountType.organizational_unit_id.is_(None),
            AccountType.foundation.is_(False),
            AccountType.created_at < func.now() - timedelta(seconds=UNIT_AGE_SECONDS),
            Tenancy.workloads_ou_id.is_not(None),
            ~queued,
        )
        .limit(BATCH)
        .with_for_update(skip_locked=True, of=AccountType)
    )
    rows = (await session.execute(missing)).all()
    # The queue takes a job id once: all workers together send one job in each span of time.
    span = int(time.time()) // UNIT_AGE_SECONDS
    for row in rows:
        await enqueue(session, row.tenancy_id, Job.CREATE_ORGANIZATIONAL_UNIT, row.id, attempt=f"sweep.{span}")
    return len(rows)
