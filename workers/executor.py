"""Where leased work is done: so many pieces of a kind side by side, each under its lease.

Work that only waits for AWS, such as a setup whose account AWS is creating, steps aside: it keeps its lease, and other
work takes its slot.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from server.leases import LeaseLost
from server.outages import cause_of, is_away
from workers.lease import Lease, R, Work, claim

# Of the ten seconds after which a supervisor kills: to come to a good place to stop, then to give the leases back.
FINISH_SECONDS, RELEASE_SECONDS = 5.0, 3.0

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """The work is unfinished and its lease is to be given back."""


class Executor(Generic[R]):
    """Does claimed work of one kind. `run` works under a lease until its row is finished, failed or waits.

    It raises LeaseLost when it has to stop without a further write, and Interrupted to give the lease back.
    """

    def __init__(
        self, engine: AsyncEngine, work: Work[R], capacity: int, run: Callable[[Lease[R]], Awaitable[None]]
    ) -> None:
        self.work = work
        self._engine = engine
        self._capacity = capacity
        self._run = run
        self._taken = 0
        self._closing = False
        self._leases: set[Lease[R]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passed_over: dict[UUID, None] = {}

    @property
    def free(self) -> int:
        """How many pieces of work more it would take now."""
        return 0 if self._closing else max(0, self._capacity - self._taken)

    async def offer(self, row_id: UUID) -> None:
        """Claim the row and run it in the background; does nothing when it is not to be had or all slots are taken.

        A row that found no slot is claimed when one falls free, unless another worker was faster.
        """
        if self._closing:
            return
        if self._taken >= self._capacity:
            self._passed_over[row_id] = None
            return
        self._taken += 1
        lease = None
        try:
            lease = await claim(self._engine, self.work, row_id)
        finally:
            if lease is None:
                self._free_slot()
        if lease is not None:
            self._leases.add(lease)
            lease.aside = self._aside
            lease.wanted_back = self._closing
            self._spawn(self._work(lease))

    def wind_down(self) -> None:
        """Claim nothing more; what runs stops at the end of its stage."""
        self._closing = True
        for lease in self._leases:
            lease.wanted_back = True

    async def close(self) -> None:
        """Wind down, and after some seconds stop the rest; every lease is given back."""
        self.wind_down()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FINISH_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=RELEASE_SECONDS)

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _free_slot(self) -> None:
        self._taken -= 1
        if self._passed_over and self.free:
            row_id = next(iter(self._passed_over))
            del self._passed_over[row_id]
            self._spawn(self._offer_again(row_id))

    @asynccontextmanager
    async def _aside(self) -> AsyncIterator[None]:
        """A block of work that needs no slot.

        It has one again at once, be there one too many for a moment: it holds a lease, and was here before.
        """
        self._free_slot()
        try:
            yield
        finally:
            self._taken += 1

    async def _offer_again(self, row_id: UUID) -> None:
        try:
            await self.offer(row_id)
        except Exception as error:
            # The sweeper offers it again.
            logger.warning("%s was not claimed, and is offered again: %s", self.work.label(row_id), cause_of(error))

    async def _work(self, lease: Lease[R]) -> None:
        try:
            await self._run_while_kept(lease)
        except LeaseLost as lost:
            logger.warning("%s; this worker leaves it", lost)
        except Interrupted:
            await self._give_back(lease)
        except asyncio.CancelledError:
            # By `close` alone, after which this task has nothing more to do than this.
            await self._give_back(lease)
        except Exception as error:
            # The lease runs out by itself, and with it the setup becomes due again.
            if is_away(error):
                logger.warning("%s stops for now, and goes on when the database is back: %s", lease, cause_of(error))
            else:
                logger.exception("%s stops for now, and is tried again when its lease has run out", lease)
        finally:
            self._leases.discard(lease)
            self._free_slot()

    async def _run_while_kept(self, lease: Lease[R]) -> None:
        work = asyncio.ensure_future(self._run(lease))
        heart = asyncio.create_task(lease.keep())
        try:
            await asyncio.wait((work, heart), return_when=asyncio.FIRST_COMPLETED)
        finally:
            first = work if work.done() else heart
            work.cancel()
            heart.cancel()
            await asyncio.gather(work, heart, return_exceptions=True)
        if not first.cancelled():
            first.result()

    async def _give_back(self, lease: Lease[R]) -> None:
        try:
            await lease.give_back()
        except LeaseLost as lost:
            logger.info("%s", lost)
        except Exception as error:
            logger.warning("%s is not given back, and goes on when its lease has run out: %s", lease, cause_of(error))
