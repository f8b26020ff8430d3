"""The lease: the right to do one piece of work, such as a setup, for some seconds at a time.

A worker that lost its lease without noticing, frozen or cut off from PostgreSQL, writes nothing: every transaction
compares the token (`Work.hold`), and every call to AWS first looks at the local deadline.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, true, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.database import transaction
from server.jobs import Job, enqueue
from server.leases import Leased, LeaseLost
from server.outages import is_away

# As long as the one call to AWS that must end within it takes at most, and a little more. What is left of it when its
# holder dies is most of the time until another one carries on.
LEASE = timedelta(seconds=8.5)
HEARTBEAT_SECONDS = 2.0
# So long before its end what is under way is stopped, so that another worker does not begin beside it.
STOP_SECONDS = 1.0
OWNER = f"{socket.gethostname()}:{os.getpid()}"

R = TypeVar("R", bound=Leased)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Work(Generic[R]):
    """A kind of work: the rows of one table. `name` is for the log, `job` wakes a worker for a row."""

    name: str
    # Of the ids under which the API shows a row.
    prefix: str
    model: type[R]
    job: Job
    # Whether there is anything left to do about a row.
    live: ColumnElement[bool]
    # Locks a row for a write by the holder of a token; raises LeaseLost.
    hold: Callable[[AsyncSession, UUID, int], Awaitable[R]]
    # What else a claim changes.
    claimed: Mapping[str, object]
    # What else has to hold of a row before it is taken up.
    in_turn: ColumnElement[bool] = field(default_factory=true)

    def label(self, row_id: UUID) -> str:
        """A row for a line of the log, by the id that the API shows."""
        return f"{self.name} {self.prefix}_{row_id.hex}"

    @property
    def due(self) -> tuple[ColumnElement[bool], ...]:
        """There is something to do, its time has come, nobody holds it and it is its turn."""
        now = func.now()
        free = or_(self.model.lease_until.is_(None), self.model.lease_until < now)
        return self.live, self.model.next_attempt_at <= now, free, self.in_turn


class Lease(Generic[R]):
    """One claimed row. `deadline`, on this machine's monotonic clock, is never later than PostgreSQL's."""

    def __init__(self, engine: AsyncEngine, work: Work[R], row_id: UUID, token: int, asked_at: float) -> None:
        self.work = work
        self.row_id = row_id
        self.token = token
        self.deadline = asked_at + LEASE.total_seconds()
        # Set when the worker shuts down: whoever works under the lease stops at the next good moment.
        self.wanted_back = False
        # A block that only waits, for others to do their part: the slot of the worker is meanwhile another's.
        self.aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self._engine = engine

    def __str__(self) -> str:
        return self.work.label(self.row_id)

    def check(self, margin: float = 0.0) -> None:
        """Raise LeaseLost unless the lease lasts `margin` seconds more."""
        if time.monotonic() + margin >= self.deadline:
            raise LeaseLost(f"{self}: lease {self.token} was not renewed in time")

    async def renew(self, **values: object) -> None:
        """Extend the lease, and write `values` with it; raises LeaseLost when it is no longer ours."""
        asked_at = time.monotonic()
        row = self.work.model
        renewed = (
            update(row)
            .where(row.id == self.row_id, row.lease_token == self.token, row.lease_until.is_not(None), self.work.live)
            .values(lease_until=func.clock_timestamp() + LEASE, **values)
            .returning(row.id)
            .execution_options(synchronize_session=False)
        )
        async with transaction(self._engine) as session:
            if await session.scalar(renewed) is None:
                raise LeaseLost(f"{self}: lease {self.token} is no longer current")
        self.deadline = asked_at + LEASE.total_seconds()

    async def keep(self) -> None:
        """Renew the lease until cancelled; raises LeaseLost a second before its end when that fails for so long."""
        while True:
            await asyncio.sleep(min(HEARTBEAT_SECONDS, self._seconds_left()))
            await self._try_to_renew()
            self.check(margin=STOP_SECONDS)

    async def _try_to_renew(self) -> None:
        """Renew the lease, for as long as there is time; raises LeaseLost when it is no longer ours."""
        renewal = asyncio.create_task(self.renew())
        renewal.add_done_callback(_end_renewal)
        try:
            await asyncio.wait({renewal}, timeout=self._seconds_left())
        finally:
            # It is not waited for: while PostgreSQL is silent, giving up a statement takes seconds, too.
            renewal.cancel()
        error = renewal.exception() if renewal.done() and not renewal.cancelled() else None
        if isinstance(error, LeaseLost):
            raise error
        if error is not None and not is_away(error):
            logger.error("%s: the lease cannot be renewed", self, exc_info=error)

    def _seconds_left(self) -> float:
        return max(0.0, self.deadline - STOP_SECONDS - time.monotonic())

    @asynccontextmanager
    async def write(self) -> AsyncIterator[tuple[AsyncSession, R]]:
        """A transaction that begins by checking the token: the only way in which a worker writes about the work."""
        async with transaction(self._engine) as session:
            yield session, await self.work.hold(session, self.row_id, self.token)

    async def give_back(self) -> None:
        """Give the work up, unfinished, for any worker to carry on at once."""
        async with self.write() as (session, row):
            row.lease_owner = row.lease_until = None
            row.hint_number += 1
            row.next_attempt_at = func.clock_timestamp()
            await enqueue(
                session, row.tenancy_id, self.work.job, self.row_id, attempt=f"{self.token}.{row.hint_number}"
            )


def _end_renewal(renewal: asyncio.Task[None]) -> None:
    """Whoever waited for it may be gone, and its error with it."""
    if not renewal.cancelled():
        renewal.exception()


async def claim(engine: AsyncEngine, work: Work[R], row_id: UUID) -> Lease[R] | None:
    """Take the lease of a row that is due and that nobody holds; None when it is not to be had."""
    asked_at = time.monotonic()
    row = work.model
    claimed = (
        update(row)
        .where(row.id == row_id, *work.due)
        .values(
            lease_token=row.lease_token + 1,
            lease_owner=OWNER,
            lease_until=func.now() + LEASE,
            hint_number=0,
            **work.claimed,
        )
        .returning(row.lease_token)
        .execution_options(synchronize_session=False)
    )
    async with transaction(engine) as session:
        token = await session.scalar(claimed)
    return None if token is None else Lease(engine, work, row_id, token, asked_at)
