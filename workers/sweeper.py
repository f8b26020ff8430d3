"""The sweeper: finds work that is due and that no job was sent for, or whose job was lost. It runs in every worker.

It is plain SQL in a loop of its own, so that nothing it does can be lost with Redis or wait behind a job. What has
expired it deletes.
"""

import asyncio
import logging
import random
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.idempotency import forget_expired
from server.outages import Outage
from workers.executor import Executor
from workers.governance import begin_due_setups

TICK_SECONDS = 0.75

logger = logging.getLogger(__name__)


async def sweep_forever(engine: AsyncEngine, *executors: Executor[Any]) -> None:
    """Sweep every `TICK_SECONDS` until cancelled; what is due goes to this worker's own executors first."""
    outage = Outage(logger, "This worker cannot look for work")
    while True:
        try:
            for executor in executors:
                await take_due(engine, executor)
            await begin_due_setups(engine)
            async with transaction(engine) as session:
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
