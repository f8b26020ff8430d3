"""Carries the plan out."""

import asyncio
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import psutil
from redis import RedisError
from redis.asyncio import Redis

from server.embedded import Services
from tests.chaos.database import Database
from tests.chaos.failpoints import Failpoints
from tests.chaos.fencing import Freezer, Frozen
from tests.chaos.plan import Kill, Kind
from tests.chaos.processes import Child, Fleet

T = TypeVar("T")

# What goes on while others are killed.
LASTING = (Kind.FREEZE, Kind.FREEZE_WRITE, Kind.FAILPOINT, Kind.VALKEY, Kind.VALKEY_WIPED)
# When nobody reaches a failpoint for so long, a worker is killed instead; it stays armed.
REACH_SECONDS = 12.0
LOOK_SECONDS = 0.05
# For so long a process that was stopped before a write waits for another to take its setup up.
TAKEOVER_SECONDS = 20.0
# So many of the workers are frozen at a time.
MOST_FROZEN = 2
TOKEN = "SELECT lease_token, status FROM setup WHERE id = $1"
# A worker that is frozen within a transaction holds its locks.
IDLE = """
SELECT now() - state_change AS since, query FROM pg_stat_activity
WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '5 s'
"""


class Killer:
    """`done` counts the kills that took place. `armed` holds every failpoint that was armed, `stuck` what became of
    processes whose setups nobody took up.
    """

    def __init__(
        self,
        services: Services,
        database: Database,
        fleet: Fleet,
        armory: Failpoints,
        freezer: Freezer,
        say: Callable[[str], None],
    ) -> None:
        self._services = services
        self._database = database
        self._fleet = fleet
        self._armory = armory
        self._freezer = freezer
        self._say = say
        self._later: list[asyncio.Task[None]] = []
        self._valkey, self._freezing = asyncio.Lock(), asyncio.Lock()
        self._frozen: set[Child] = set()
        self._may_freeze = asyncio.Semaphore(MOST_FROZEN)
        self.done: Counter[Kind] = Counter()
        self.armed: set[str] = set()
        self.stuck: list[str] = []

    async def carry_out(self, plan: Sequence[Kill]) -> None:
        """Every kill of the plan, until the last frozen process has been thawed."""
        try:
            for number, kill in enumerate(plan, start=1):
                await asyncio.sleep(kill.pause)
                self._say(f"{number} of {len(plan)}: {kill.kind} {kill.failpoint}".rstrip())
                if kill.kind in LASTING:
                    # The others go on meanwhile.
                    self._later.append(asyncio.create_task(self._lasting(kill)))
                else:
                    await self._now(kill)
                    self.done[kill.kind] += 1
            await asyncio.gather(*self._later)
        finally:
            for task in self._later:
                task.cancel()

    async def _now(self, kill: Kill) -> None:
        match kill.kind:
            case Kind.WORKER | Kind.SERVER:
                self._choose("worker" if kill.kind is Kind.WORKER else "server", kill).send(signal.SIGKILL)
            case Kind.TERM:
                self._choose("server" if kill.server else "worker", kill).send(signal.SIGTERM)
            case Kind.BACKENDS:
                await self._database.end_half_of_the_backends()
            case _:
                await self._kill_postgres()

    async def _lasting(self, kill: Kill) -> None:
        match kill.kind:
            case Kind.FREEZE:
                done = await self._freeze(kill)
            case Kind.FREEZE_WRITE:
                done = await self._freeze_before_a_write(kill)
            case Kind.FAILPOINT:
                done = await self._arm(kill)
            case _:
                done = await self._kill_valkey(kill)
        if not done:
            self._choose("worker", kill).send(signal.SIGKILL)
        self.done[kill.kind if done else Kind.WORKER] += 1

    def _choose(self, kind: str, kill: Kill) -> Child:
        thawed = [child for child in self._fleet.of(kind) if child not in self._frozen]
        children = [child for child in thawed if not child.asked_to_end] or thawed
        return children[int(kill.which * len(children))]

    async def _freeze(self, kill: Kill) -> bool:
        async with self._may_freeze:
            child = self._choose("worker", kill)
            child.send(signal.SIGSTOP)
            async with self._thawed(child):
                await asyncio.sleep(kill.seconds)
        return True

    async def _freeze_before_a_write(self, kill: Kill) -> bool:
        async with self._may_freeze:
            async with self._freezing:
                self._freezer.arm()
                frozen = await self._until(self._freezer.take_frozen, REACH_SECONDS)
                if frozen is None and not self._freezer.disarm():
                    # One is stopping just now.
                    frozen = await self._until(self._freezer.take_frozen, REACH_SECONDS)
            if frozen is None:
                return False
            child = next((each for each in self._fleet.of("worker") if each.pid == frozen.pid), None)
            if child is None:
                # Killed by somebody else in that moment.
                return False
            async with self._thawed(child):
                await self._taken_over(child, frozen)
        return True

    @asynccontextmanager
    async def _thawed(self, child: Child) -> AsyncIterator[None]:
        self._frozen.add(child)
        try:
            yield
        finally:
            self._frozen.discard(child)
            child.send(signal.SIGCONT)

    async def _taken_over(self, child: Child, frozen: Frozen) -> None:
        """Wait until the setup that the process was about to write about has another holder."""
        deadline = time.monotonic() + TAKEOVER_SECONDS
        while not child.ended.done():
            (row,) = await self._database.patiently(TOKEN, frozen.setup_id)
            if row["lease_token"] > frozen.token:
                return
            if time.monotonic() > deadline:
                idle = [f"{each['since']} after {each['query']!r}" for each in await self._database.patiently(IDLE)]
                self.stuck.append(
                    f"setup {frozen.setup_id} of a frozen worker was not taken up in {TAKEOVER_SECONDS:.0f} s: "
                    f"{dict(row)}; idle in a transaction: {'; '.join(idle) or 'nobody'}"
                )
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _arm(self, kill: Kill) -> bool:
        self._armory.arm(kill.failpoint)
        self.armed.add(kill.failpoint)
        if kill.failpoint.startswith("give_back"):
            # Nothing is given back before a shutdown.
            self._choose("worker", kill).send(signal.SIGTERM)
        return bool(await self._until(lambda: not self._armory.is_armed(kill.failpoint), REACH_SECONDS))

    async def _until(self, look: Callable[[], T], seconds: float) -> T | None:
        """What `look` finds, None when that takes longer; a process dies and stops without a word."""
        deadline = time.monotonic() + seconds
        while not (found := look()) and time.monotonic() < deadline:  # noqa: ASYNC110 - see Recoveries.watch
            await asyncio.sleep(LOOK_SECONDS)
        return found or None

    async def _kill_postgres(self) -> None:
        # Once it is up: one that dies while it starts says nothing about its clients.
        await self._database.patiently("SELECT 1")
        (postmaster,) = self._running("postgres")
        postmaster.kill()

    async def _kill_valkey(self, kill: Kill) -> bool:
        async with self._valkey:
            await self._valkey_answers()
            (server,) = self._running("valkey-server")
            guard = server.parent()
            assert guard is not None
            # It would start another one at once.
            guard.suspend()
            try:
                if kill.kind is Kind.VALKEY_WIPED:
                    # It goes on writing to files without a name, and the next one finds none.
                    shutil.rmtree(self._services.data_dir / "valkey" / "appendonlydir")
                server.kill()
                await asyncio.sleep(kill.seconds)
            finally:
                guard.resume()
        return True

    async def _valkey_answers(self) -> None:
        async with Redis.from_url(self._services.redis_url) as client:
            while True:
                try:
                    await client.ping()
                    return
                except (RedisError, OSError):
                    await asyncio.sleep(LOOK_SECONDS)

    def _running(self, program: str) -> list[psutil.Process]:
        """The program that a guard of ours runs: its direct child."""
        return [child for guard in psutil.Process().children() for child in _children(guard) if child.name() == program]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []
