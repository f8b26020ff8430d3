"""The embedded services as one: start them on a data directory, run further commands beside them, stop all in order."""

import asyncio
import signal
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never, TypeVar

from server.embedded import directory, postgres, simulator, valkey
from server.embedded.postgres import Database
from server.embedded.supervisor import Command, Probe, Supervisor

T = TypeVar("T")

ALL_SERVICES = frozenset({postgres.NAME, valkey.NAME, simulator.NAME})
# Whoever uses a service stops before it does.
STOP_ORDER = (simulator.NAME, valkey.NAME, postgres.NAME)


@dataclass(slots=True)
class Services:
    """What `embedded` started. Reading the address of a service that was left out is a mistake and raises."""

    data_dir: Path
    supervisor: Supervisor
    _database: Database | None = field(default=None, repr=False)
    _redis_url: str | None = field(default=None, repr=False)
    _aws_endpoint: str | None = None

    @property
    def owner_url(self) -> str:
        """PostgreSQL as the owner of the tables: for the migrations alone."""
        return _started(self._database, postgres.NAME).owner_url

    @property
    def app_url(self) -> str:
        """PostgreSQL as `freehold_app`, a role that the migrations create."""
        return _started(self._database, postgres.NAME).app_url

    @property
    def worker_url(self) -> str:
        """PostgreSQL as `freehold_worker`, a role that the migrations create."""
        return _started(self._database, postgres.NAME).worker_url

    @property
    def redis_url(self) -> str:
        return _started(self._redis_url, valkey.NAME)

    @property
    def aws_endpoint(self) -> str:
        return _started(self._aws_endpoint, simulator.NAME)

    async def start(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        ready: Probe | None = None,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 10.0,
    ) -> None:
        """Run a command under the same supervision: restarted when it ends, stopped before the embedded services.

        `environment` is added to this process's own; secrets belong there, not into `argv`. Returns when `ready`
        answers True of this start. Raises ServiceError, with the end of its log, when it does not get there.
        """
        await self.supervisor.start(Command(name, argv, environment, ready, stop_signal, grace))

    async def wait(self) -> Never:
        """Wait for as long as everything runs; raises ServiceError when something cannot be kept running."""
        await self.supervisor.wait()


@asynccontextmanager
async def embedded(
    data_dir: Path, *, services: Collection[str] = ALL_SERVICES, fsync: bool = True
) -> AsyncIterator[Services]:
    """Run the embedded services on a data directory, which is created when it does not exist.

    They listen on free ports of the loopback address and stop, in order, when the context is left. `fsync=False` is
    for tests: faster, and the data may not survive a crash of the machine (it does survive one of the processes).

    Raises DirectoryInUseError, ServiceError or another EmbeddedError, whose messages are for the operator.
    """
    if unknown := set(services) - ALL_SERVICES:
        raise ValueError(f"no such services: {', '.join(sorted(unknown))}")
    data_dir = directory.prepare(data_dir)
    async with directory.held(data_dir) as lock:
        supervisor = Supervisor(data_dir / "logs", lock, STOP_ORDER)
        try:
            yield await _start(Services(data_dir, supervisor), services, fsync)
        finally:
            await supervisor.stop()


async def _start(running: Services, services: Collection[str], fsync: bool) -> Services:
    supervisor, data_dir = running.supervisor, running.data_dir

    async def start_simulator() -> None:
        running._aws_endpoint = await simulator.start(supervisor, data_dir, fsync)

    async def start_postgres() -> None:
        running._database = await postgres.start(supervisor, data_dir, fsync)

    async def start_valkey() -> None:
        running._redis_url = await valkey.start(supervisor, data_dir, fsync)

    # The simulator takes longest, so it goes first.
    starts = {simulator.NAME: start_simulator, postgres.NAME: start_postgres, valkey.NAME: start_valkey}
    tasks = [asyncio.create_task(start()) for name, start in starts.items() if name in services]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return running


def _started(value: T | None, name: str) -> T:
    if value is None:
        raise RuntimeError(f"{name} is not among the services that were started")
    return value
