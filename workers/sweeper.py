"""The sweeper: finds work that is due and that no job was sent for, or whose job was lost. It runs in every worker.

It is plain SQL in a loop of its own, so that nothing it does can be lost with Redis or wait behind a job. What has
expired it deletes.
"""

import asyncio
import logging
import random
import time
from datetime import timedelta
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.account_types.models import AccountType
from server.database import transaction
from server.idempotency import forget_expired
from server.jobs import Job, Outbox, enqueue
from server.outages import Outage
from server.tenancies.models import Tenancy
from workers.executor import Executor
from workers.governance import begin_due_setups

TICK_SECONDS = 0.75
BATCH = 200
# How long the job of a new account type may take, and how often it is sent again after that.
UNIT_AGE_SECONDS = 10

logger = logging.getLogger(__name__)


async def sweep_forever(engine: AsyncEngine, *executors: Executor[Any]) -> None:
    """Sweep every `TICK_SECONDS` until cancelled; what is due goes to this worker's own executors first."""
    outage = Outage(logger, "Nothing is swept")
    while True:
        try:
            for executor in executors:
                await take_due(engine, executor)
            await begin_due_setups(engine)
            async with transaction(engine) as session:
                await wake_missing_units(session)
                await forget_expired(session)
        except Exception as error:
            # Whatever it was, it is logged there, and the loop must outlive it.
            await asyncio.sleep(outage.begin(error))
        else:
            outage.end()
            # Workers that started together drift apart.
            await asyncio.sleep(TICK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - no secret


async def take_due(engine: AsyncEngine, executor: Executor[Any]) -> None:
    """Offer the executor as much work that is due as it has slots for: nothing on the way is Redis's to lose."""
    if executor.free <= 0:
        return
    row = executor.work.model
    due = select(row.id).where(*executor.work.due).order_by(row.next_attempt_at).limit(executor.free)
    async with transaction(engine) as session:
        found = list(await session.scalars(due))
    # Workers that see the same rows begin with others.
    random.shuffle(found)
    for row_id in found:
        await executor.offer(row_id)


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
