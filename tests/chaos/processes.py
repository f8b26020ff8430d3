"""The harness's side of the nursery: servers and workers that are started again the moment they end."""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.failpoints import Failpoints

# A process that ends by itself so soon, so often in a row, does not come back.
SHORT_SECONDS, SHORT_RUNS = 1.0, 20


@dataclass(eq=False)
class Child:
    name: str
    pid: int
    began: float
    ended: asyncio.Future[int]
    # What the harness has done to it, so that its end is no surprise.
    asked_to_end: bool = False
    log: Path = field(default_factory=Path)

    def send(self, number: signal.Signals) -> bool:
        """Whether it still ran. The nursery waits for its children, so an id is not another's before `ended` is set."""
        if self.ended.done():
            return False
        self.asked_to_end |= number in (signal.SIGKILL, signal.SIGTERM)
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


class Nursery:
    """Forks children on request."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._forking = asyncio.Lock()
        self._started: asyncio.Queue[int] = asyncio.Queue()
        self._ends: dict[int, asyncio.Future[int]] = {}

    async def fork(self, name: str, environment: Mapping[str, str], log: Path) -> Child:
        order = {"kind": name.partition("-")[0], "environment": dict(environment), "log": str(log)}
        async with self._forking:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            pid = await self._started.get()
        return Child(name, pid, time.monotonic(), self._ends[pid], log=log)

    async def listen(self) -> None:
        """Take the nursery's reports until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            report = json.loads(line)
            if "started" in report:
                self._ends[report["started"]] = asyncio.get_running_loop().create_future()
                self._started.put_nowait(report["started"])
            else:
                self._ends.pop(report["ended"]).set_result(report["status"])

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@asynccontextmanager
async def nursery(failpoints: Failpoints, log: Path) -> AsyncIterator[Nursery]:
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.nursery", str(failpoints.directory)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            start_new_session=True,
        )
    running = Nursery(process)
    listening = asyncio.create_task(running.listen())
    try:
        yield running
    finally:
        await running.close()
        await listening


class Fleet:
    """Named processes, each restarted at once. `on_end` is told of every end with its exit status."""

    def __init__(
        self, nursery: Nursery, failpoints: Failpoints, logs: Path, on_end: Callable[[Child, int, str | None], None]
    ) -> None:
        self._nursery = nursery
        self._failpoints = failpoints
        self._logs = logs
        self._on_end = on_end
        self._tasks: list[asyncio.Task[None]] = []
        self.children: dict[str, Child] = {}
        # Ends that nobody asked for.
        self.surprises: list[str] = []

    async def start(self, name: str, environment: Mapping[str, str]) -> None:
        self.children[name] = await self._fork(name, environment)
        self._tasks.append(asyncio.create_task(self._keep(name, environment), name=name))

    def of(self, kind: str) -> list[Child]:
        return [child for name, child in sorted(self.children.items()) if name.startswith(kind)]

    async def failed(self) -> None:
        """Wait until a process cannot be kept running; raises what is wrong with it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Start nothing again. (The nursery ends what runs.)"""
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fork(self, name: str, environment: Mapping[str, str]) -> Child:
        return await self._nursery.fork(name, environment, self._logs / f"{name}.log")

    async def _keep(self, name: str, environment: Mapping[str, str]) -> None:
        short = 0
        while True:
            child = self.children[name]
            status = await asyncio.shield(child.ended)
            failpoint = self._failpoints.take_hit(child.pid)
            self._on_end(child, status, failpoint)
            if failpoint is None and not child.asked_to_end:
                self.surprises.append(f"{name} ended by itself with status {status}; see {child.log}")
                short = short + 1 if time.monotonic() - child.began < SHORT_SECONDS else 0
                if short == SHORT_RUNS:
                    raise RuntimeError(self.surprises[-1])
            else:
                short = 0
            self.children[name] = await self._fork(name, environment)
