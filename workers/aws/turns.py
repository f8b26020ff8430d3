"""Turns at changing an organization, over all workers.

AWS answers changes of one organization that meet with ConcurrentModificationException. Waiting in line costs a few
milliseconds, being refused and trying again costs seconds.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.tenancies.models import OrganizationTurn
from workers.aws.session import Aws

# After this long another worker begins, because the one whose turn it is may be dead. If it is not, AWS refuses one of
# the two and that one tries again.
TURN = timedelta(seconds=8)
# How long a worker that found another's turn waits before it looks again.
LOOK_SECONDS = 0.1

logger = logging.getLogger(__name__)


@asynccontextmanager
async def organization_turn(engine: AsyncEngine, aws: Aws, tenancy_id: UUID) -> AsyncIterator[None]:
    """A block in which no other worker changes the tenancy's organization, for as long as TURN.

    Whoever waits waits in the order of coming within a worker, and by chance among workers.
    """
    async with aws.organization_writes[tenancy_id]:
        holder = uuid4()
        while not await _take(engine, tenancy_id, holder):  # noqa: ASYNC110 - the other worker is another process
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        try:
            yield
        finally:
            await _leave(engine, tenancy_id, holder)


async def _take(engine: AsyncEngine, tenancy_id: UUID, holder: UUID) -> bool:
    now = func.clock_timestamp()
    turn = insert(OrganizationTurn).values(tenancy_id=tenancy_id, holder=holder, until=now + TURN)
    taken = turn.on_conflict_do_update(
        index_elements=[OrganizationTurn.tenancy_id],
        set_={"holder": turn.excluded.holder, "until": turn.excluded.until},
        where=OrganizationTurn.until < now,
    ).returning(OrganizationTurn.holder)
    async with transaction(engine) as session:
        return await session.scalar(taken) is not None


async def _leave(engine: AsyncEngine, tenancy_id: UUID, holder: UUID) -> None:
    """What was done in the turn is done, whether or not this succeeds."""
    ours = delete(OrganizationTurn).where(OrganizationTurn.tenancy_id == tenancy_id, OrganizationTurn.holder == holder)
    try:
        async with transaction(engine) as session:
            await session.execute(ours)
    except Exception as error:
        logger.warning(
            "the turn at the organization of tenancy %s runs out by itself: %s: %s",
            tenancy_id,
            type(error).__name__,
            error,
        )
