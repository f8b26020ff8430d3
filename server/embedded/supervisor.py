"""Starts commands, each under a guard, restarts those that end, and stops them all in order."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never, TypeAlias

from server.config import START
from server.embedded import guard
from server.embedded.errors import ServiceError
from server.embedded.users import User

log = logging.getLogger(__name__)

Probe: TypeAlias = Callable[[str], Awaitable[bool]]

LOG_BYTES = 10 * 1024 * 1024
TAIL_LINES = 20
START_ATTEMPTS = 3
# How a command says that starting it again would end the same way.
HOPELESS = os.EX_CONFIG
START_SECONDS = 60.0
PROBE_SECONDS = 0.03
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
# A run of this length was a good one: the next restart waits no longer than the first did.
STABLE_SECONDS = 30.0
# What has no readiness probe has started when it lives this long.
PROOF_OF_LIFE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `environment` is added to this process's own, and the mark of each start under the name START.

    `ready` answers whether the start of that mark can be used.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Probe | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    user: User | None = None


class Supervisor:
    """Runs commands until `stop`. `lock` is an open file that every guard keeps open for as long as it lives."""

    def __init__(self, logs: Path, lock: int, stop_last: Sequence[str] = ()) -> None:
        self._logs = logs
        self._lock = lock
        self._stop_last = stop_last
        self._services: dict[str, Service] = {}
        self._failed: asyncio.Future[Never] = asyncio.get_running_loop().create_future()
        logs.mkdir(mode=0o700, exist_ok=True)

    async def start(self, command: Command) -> None:
        """Start a command and restart it whenever it ends; returns when it is ready.

        Raises ServiceError, with the end of its log, when it ends before that several times, or once with HOPELESS, or
        takes too long.
        """
        if command.name in self._services:
            raise ValueError(f"{command.name} has been started already")
        service = Service(command, self._logs / f"{command.name}.log", self._lock)
        self._services[command.name] = service
        await service.start(self._give_up)

    async def run(self, command: Command) -> None:
        """Run a command to its end; raises ServiceError when it fails."""
        service = Service(command, self._logs / f"{command.name}.log", self._lock)
        self._services[command.name] = service
        try:
            await service.run()
        finally:
            await service.stop()
            del self._services[command.name]

    async def wait(self) -> Never:
        """Wait until a service cannot be kept running, and raise its ServiceError."""
        await asyncio.shield(self._failed)
        raise AssertionError("a failure without an exception")

    async def stop(self) -> None:
        """Stop every service, the last one started first; those named in `stop_last` after all others."""
        last = [name for name in self._stop_last if name in self._services]
        for name in [*(each for each in reversed(self._services) if each not in last), *last]:
            await self._services[name].stop()
        self._services.clear()
        if self._failed.done():
            self._failed.exception()  # seen, or asyncio would complain that nobody waited for it

    def _give_up(self, failure: Exception) -> None:
        log.error("%s", failure, exc_info=None if isinstance(failure, ServiceError) else failure)
        if not self._failed.done():
            self._failed.set_exception(failure)


class Service:
    """One command with its guard, its log and its restarts."""

    def __init__(self, command: Command, log_path: Path, lock: int) -> None:
        self.command = command
        self.log_path = log_path
        self._lock = lock
        self._stopping = asyncio.Event()
        self._spawning: asyncio.Task[Process] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._started, self._start = 0.0, ""

    async def start(self, give_up: Callable[[Exception], None]) -> None:
        _rotate(self.log_path)
        process = await self._start_repeatedly(await self._spawn())
        if process is not None:
            log.info("%s is ready", self.command.name)
            self._keeping = asyncio.create_task(self._keep(process, give_up), name=f"keep {self.command.name}")

    async def run(self) -> None:
        _rotate(self.log_path)
        process = await self._spawn()
        if code := await process.wait():
            raise self._failure(f"failed ({_ending(code)})")

    async def stop(self) -> None:
        """End the lifeline and wait until the guard has ended the command."""
        self._stopping.set()
        if self._spawning is None:
            return
        with contextlib.suppress(OSError):
            process = await self._spawning
            _cut(process)
            await process.wait()
        if self._keeping is not None:
            await self._keeping

    async def _spawn(self) -> Process:
        # Its own task: a start that is cancelled half-way still leaves a process that `stop` knows.
        self._spawning = asyncio.create_task(self._start_guard())
        return await asyncio.shield(self._spawning)

    async def _start_guard(self) -> Process:
        command, user = self.command, self.command.user
        with self.log_path.open("ab") as output:
            self._started, self._start = time.monotonic(), secrets.token_hex(8)
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-E", str(Path(guard.__file__))),
                *(str(int(command.stop_signal)), str(command.grace)),
                *(("-", "-", "0") if user is None else (str(user.uid), str(user.gid), "1" if user.closed else "0")),
                *command.argv,
                env={**os.environ, **command.environment, START: self._start},
                stdin=PIPE,
                stdout=output,
                stderr=STDOUT,
                # Out of the terminal's reach: Ctrl-C and a closed window speak to the supervisor alone.
                start_new_session=True,
                pass_fds=(self._lock,),
            )

    async def _start_repeatedly(self, process: Process) -> Process | None:
        """A process that got ready, or None when the service is being stopped."""
        delay = FIRST_DELAY
        for attempt in range(1, START_ATTEMPTS + 1):
            if await self._gets_ready(process):
                return process
            if self._stopping.is_set():
                return None
            code = await process.wait()
            if code == HOPELESS:
                raise self._failure("does not start")
            if attempt == START_ATTEMPTS:
                break
            log.warning("%s ended while starting (%s); trying again", self.command.name, _ending(code))
            if await self._pause(delay):
                return None
            delay *= 2
            process = await self._spawn()
        raise self._failure(f"does not start: it ended {START_ATTEMPTS} times ({_ending(process.returncode)})")

    async def _gets_ready(self, process: Process) -> bool:
        """True when the process is ready, False when it ended or is being stopped."""
        probe, deadline = self.command.ready, time.monotonic() + START_SECONDS
        if probe is None:
            return True
        ended = asyncio.create_task(process.wait())
        try:
            while not self._stopping.is_set():
                if await probe(self._start):
                    return not ended.done()
                if time.monotonic() > deadline:
                    raise self._failure(f"is not ready after {START_SECONDS:.0f} seconds")
                await asyncio.wait([ended], timeout=PROBE_SECONDS)
                if ended.done():
                    return False
            return False
        finally:
            ended.cancel()

    async def _keep(self, process: Process, give_up: Callable[[Exception], None]) -> None:
        """Restart the process whenever it ends, until the service is stopped or does not start any more."""
        name, delay, short_runs = self.command.name, FIRST_DELAY, 0
        while True:
            code = await process.wait()
            if self._stopping.is_set():
                return
            lived = time.monotonic() - self._started
            delay = FIRST_DELAY if lived > STABLE_SECONDS else delay
            short_runs = short_runs + 1 if self.command.ready is None and lived < PROOF_OF_LIFE_SECONDS else 0
            try:
                if short_runs == START_ATTEMPTS:
                    raise self._failure(f"does not start: it ended {START_ATTEMPTS} times ({_ending(code)})")
                log.warning(
                    "%s ended unexpectedly (%s); starting it again in %.1f s; its log: %s",
                    *(name, _ending(code), delay, self.log_path),
                )
                if await self._pause(delay):
                    return
                delay = min(delay * 2, LONGEST_DELAY)
                restarted = await self._start_repeatedly(await self._spawn())
            except Exception as failure:
                # Whatever it was: what is not kept running any more must not look as if it were.
                give_up(failure)
                return
            if restarted is None:
                return
            log.info("%s is ready again", name)
            process = restarted

    async def _pause(self, seconds: float) -> bool:
        """Wait; True when the service is being stopped meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    def _failure(self, what: str) -> ServiceError:
        return ServiceError(self.command.name, what, self.log_path, _tail(self.log_path))


def _cut(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()


def _ending(code: int | None) -> str:
    if code is None:
        return "still running"
    number = -code if code < 0 else code - 128
    if number > 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(number).name
    return f"exit status {code}"


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16 * 1024))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
