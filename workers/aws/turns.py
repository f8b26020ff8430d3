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

from sqlalchemy import and_, delete, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.outages import cause_of
from server.tenancies.models import OrganizationTurn
from workers.aws.session import Aws

# After this long another worker begins, because the one whose turn it is may be dead. If it is not, AWS refuses one of
# the two and that one tries again.
TURN = timedelta(seconds=8)
# How long a worker that found another's turn waits before it looks again.
LOOK_SECONDS = 0.1
# For so long after its last look the next turn is kept for a worker that waits: those of the worker that has the turn
# are at hand, and would always be first.
WANTED = timedelta(seconds=0.5)

logger = logging.getLogger(__name__)


@asynccontextmanager
async def organization_turn(engine: AsyncEngine, aws: Aws, tenancy_id: UUID) -> AsyncIterator[None]:
    """A block in which no other worker changes the tenancy's organization, for as long as TURN.

    Whoever waits waits in the order of coming within a worker. While another worker waits, none has two turns in a row.
    """
    async with aws.organization_writes[tenancy_id]:
        holder = uuid4()
        while not await _take(engine, aws, tenancy_id, holder):  # noqa: ASYNC110 - the other worker is another process
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        try:
            yield
        finally:
            await _leave(engine, tenancy_id, holder)


async def _take(engine: AsyncEngine, aws: Aws, tenancy_id: UUID, holder: UUID) -> bool:
    """Take the turn if it is to be had; otherwise say that it is wanted."""
    now = func.clock_timestamp()
    ours = OrganizationTurn.worker == aws.worker
    kept_for_another = and_(ours, OrganizationTurn.wanted_by != aws.worker, OrganizationTurn.wanted_until > now)
    turn = insert(OrganizationTurn).values(tenancy_id=tenancy_id, holder=holder, until=now + TURN, worker=aws.worker)
    taken = turn.on_conflict_do_update(
        index_elements=[OrganizationTurn.tenancy_id],
        set_={
            **{column: turn.excluded[column] for column in ("holder", "until", "worker")},
            "wanted_by": None,
            "wanted_until": None,
        },
        where=and_(OrganizationTurn.until < now, kept_for_another.is_not(True)),
    ).returning(OrganizationTurn.holder)
    wanted = (
        update(OrganizationTurn)
        .where(OrganizationTurn.tenancy_id == tenancy_id, OrganizationTurn.worker != aws.worker)
        .values(wanted_by=aws.worker, wanted_until=now + WANTED)
        .execution_options(synchronize_session=False)
    )
    async with transaction(engine) as session:
        if await session.scalar(taken) is not None:
            return True
        await session.execute(wanted)
        return False


async def _leave(engine: AsyncEngine, tenancy_id: UUID, holder: UUID) -> None:
    """What was done in the turn is done, whether or not this succeeds."""
    now = func.clock_timestamp()
    ours = (OrganizationTurn.tenancy_id == tenancy_id, OrganizationTurn.holder == holder)
    wanted = OrganizationTurn.wanted_until > now
    unwanted = delete(OrganizationTurn).where(*ours, wanted.is_not(True)).returning(OrganizationTurn.holder)
    over = update(OrganizationTurn).where(*ours).values(until=now)
    try:
        async with transaction(engine) as session:
            if await session.scalar(unwanted.execution_options(synchronize_session=False)) is None:
                await session.execute(over.execution_options(synchronize_session=False))
    except Exception as error:
        logger.warning(
            "the turn at the organization of tenancy ten_%s is not given up, and runs out by itself: %s",
            tenancy_id.hex,
            cause_of(error),
        )
