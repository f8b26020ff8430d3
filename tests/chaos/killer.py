"""Carries the plan out."""

import asyncio
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil
from redis import RedisError
from redis.asyncio import Redis

from server.embedded import Services
from tests.chaos.database import Database
from tests.chaos.failpoints import Failpoints
from tests.chaos.plan import Kill, Kind
from tests.chaos.processes import Child, Fleet

# A failpoint that nobody reaches for so long is given up, and a worker killed instead.
REACH_SECONDS = 12.0
LOOK_SECONDS = 0.05


class Killer:
    """`done` counts the kills that took place, `failpoints` those at each place."""

    def __init__(
        self,
        services: Services,
        database: Database,
        fleet: Fleet,
        armory: Failpoints,
        say: Callable[[str], None],
    ) -> None:
        self._services = services
        self._database = database
        self._fleet = fleet
        self._armory = armory
        self._say = say
        self._later: set[asyncio.Task[None]] = set()
        self.done: Counter[Kind] = Counter()
        self.failpoints: Counter[str] = Counter()

    async def carry_out(self, plan: Sequence[Kill]) -> None:
        """Every kill of the plan, until the last frozen process has been thawed."""
        try:
            for number, kill in enumerate(plan, start=1):
                await asyncio.sleep(kill.pause)
                self._say(f"{number} of {len(plan)}: {kill.kind} {kill.failpoint}".rstrip())
                if kill.kind in (Kind.FREEZE, Kind.FAILPOINT):
                    # The others go on meanwhile.
                    task = asyncio.create_task(self._freeze(kill) if kill.kind is Kind.FREEZE else self._arm(kill))
                    self._later.add(task)
                    task.add_done_callback(self._later.discard)
                else:
                    await self._now(kill)
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
            case Kind.POSTGRES:
                await self._kill_postgres()
            case _:
                await self._kill_valkey(wipe=kill.kind is Kind.VALKEY_WIPED)
        self.done[kill.kind] += 1

    def _choose(self, kind: str, kill: Kill) -> Child:
        children = [child for child in self._fleet.of(kind) if not child.asked_to_end] or self._fleet.of(kind)
        return children[int(kill.which * len(children))]

    async def _freeze(self, kill: Kill) -> None:
        child = self._choose("worker", kill)
        child.send(signal.SIGSTOP)
        self.done[kill.kind] += 1
        await asyncio.sleep(kill.seconds)
        child.send(signal.SIGCONT)

    async def _arm(self, kill: Kill) -> None:
        self._armory.arm(kill.failpoint)
        with suppress(TimeoutError):
            async with asyncio.timeout(REACH_SECONDS):
                while self._armory.is_armed(kill.failpoint):  # noqa: ASYNC110 - a process dies without a word
                    await asyncio.sleep(LOOK_SECONDS)
        if self._armory.disarm(kill.failpoint):
            self._choose("worker", kill).send(signal.SIGKILL)
            self.done[Kind.WORKER] += 1
        else:
            self.failpoints[kill.failpoint] += 1
            self.done[kill.kind] += 1

    async def _kill_postgres(self) -> None:
        # Once it is up: one that dies while it starts says nothing about its clients.
        await self._database.patiently("SELECT 1")
        (postmaster,) = self._running("postgres")
        postmaster.kill()

    async def _kill_valkey(self, *, wipe: bool) -> None:
        await self._valkey_answers()
        (server,) = self._running("valkey-server")
        if wipe:
            # It goes on writing to files without a name, and the next one finds none.
            shutil.rmtree(self._services.data_dir / "valkey" / "appendonlydir")
        server.kill()

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
