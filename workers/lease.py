"""The lease: the right to work on one setup, for some seconds at a time.

A worker that lost its lease without noticing, frozen or cut off from PostgreSQL, writes nothing: every transaction
compares the token (`server.assurance.service.hold`), and every call to AWS first looks at the local deadline.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.assurance.models import LIVE, Setup, SetupStatus
from server.assurance.service import LeaseLost, hold
from server.database import transaction
from server.jobs import Job, enqueue
from server.outages import is_away
from workers.due import is_due

# As long as the one call to AWS that must end within it takes at most, and a little more. What is left of it when its
# holder dies is most of the time until another one carries on.
LEASE = timedelta(seconds=8.5)
HEARTBEAT_SECONDS = 2.0
OWNER = f"{socket.gethostname()}:{os.getpid()}"

logger = logging.getLogger(__name__)


class Lease:
    """One claimed setup. `deadline`, on this machine's monotonic clock, is never later than PostgreSQL's."""

    def __init__(self, engine: AsyncEngine, setup_id: UUID, token: int, asked_at: float) -> None:
        self.setup_id = setup_id
        self.token = token
        self.deadline = asked_at + LEASE.total_seconds()
        # Set when the worker shuts down: whoever works under the lease stops at the next good moment.
        self.wanted_back = False
        # A block that only waits, for others to do their part: the slot of the worker is meanwhile another's.
        self.aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self._engine = engine

    def check(self, margin: float = 0.0) -> None:
        """Raise LeaseLost unless the lease lasts `margin` seconds more."""
        if time.monotonic() + margin >= self.deadline:
            raise LeaseLost(f"setup {self.setup_id}: lease {self.token} was not renewed in time")

    async def renew(self) -> None:
        """Extend the lease; raises LeaseLost when it is no longer ours."""
        asked_at = time.monotonic()
        renewed = (
            update(Setup)
            .where(
                Setup.id == self.setup_id,
                Setup.lease_token == self.token,
                Setup.lease_until.is_not(None),
                Setup.status.in_(LIVE),
            )
            .values(lease_until=func.clock_timestamp() + LEASE)
            .returning(Setup.id)
            .execution_options(synchronize_session=False)
        )
        async with transaction(self._engine) as session:
            if await session.scalar(renewed) is None:
                raise LeaseLost(f"setup {self.setup_id}: lease {self.token} is no longer current")
        self.deadline = asked_at + LEASE.total_seconds()

    async def keep(self) -> None:
        """Renew the lease until cancelled; raises LeaseLost when that fails for as long as the lease lasts."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self.renew()
            except LeaseLost:
                raise
            except Exception as error:
                if not is_away(error):
                    logger.exception("setup %s: the lease cannot be renewed", self.setup_id)
            # A second early: what is under way should be stopped before another worker may begin.
            self.check(margin=1.0)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[tuple[AsyncSession, Setup]]:
        """A transaction that begins by checking the token: the only way in which a worker writes about a setup."""
        async with transaction(self._engine) as session:
            yield session, await hold(session, self.setup_id, self.token)

    async def give_back(self) -> None:
        """Give the setup up, unfinished, for any worker to carry on at once."""
        async with self.write() as (session, setup):
            setup.lease_owner = setup.lease_until = setup.hinted_at = None
            setup.hint_number += 1
            setup.next_attempt_at = func.clock_timestamp()
            await enqueue(
                session, setup.tenancy_id, Job.RUN_SETUP, setup.id, attempt=f"{self.token}.{setup.hint_number}"
            )


async def claim(engine: AsyncEngine, setup_id: UUID) -> Lease | None:
    """Take the lease of a setup that is due (`workers.due`); None when it is not to be had."""
    asked_at = time.monotonic()
    claimed = (
        update(Setup)
        .where(Setup.id == setup_id, is_due())
        .values(
            lease_token=Setup.lease_token + 1,
            lease_owner=OWNER,
            lease_until=func.now() + LEASE,
            hint_number=0,
            status=SetupStatus.RUNNING,
        )
        .returning(Setup.lease_token)
        .execution_options(synchronize_session=False)
    )
    async with transaction(engine) as session:
        token = await session.scalar(claimed)
    return None if token is None else Lease(engine, setup_id, token, asked_at)
