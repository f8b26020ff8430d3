"""Two servers with all their subscribers connected, and events to the one and the other in turn."""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

# Events of each server before the first that is measured, and of one turn.
WARM, TURN = 3, 5
SUBSCRIBE_SECONDS, EVENT_SECONDS = 300, 60


@dataclass
class Fanout:
    """A server, its subscribers, and what was measured of them."""

    process: psutil.Process
    clients: asyncio.subprocess.Process
    publish: Callable[[], Awaitable[None]]
    subscribers: int
    subscribe_seconds: float = 0.0
    kb_per_connection: float = 0.0
    frame_bytes: int = 0
    last_receipt_ms: list[float] = field(default_factory=list)
    cpu_us_per_message: list[float] = field(default_factory=list)

    async def receipt(self, seconds: float = EVENT_SECONDS) -> float:
        """When the last subscriber has received the next event."""
        assert self.clients.stdout is not None
        line = await asyncio.wait_for(self.clients.stdout.readline(), seconds)
        assert line, "the clients have failed"
        receipt = json.loads(line)
        self.frame_bytes = receipt["size"]
        return float(receipt["at"])

    async def send_one(self) -> float:
        """Milliseconds from before an event is committed to its last receipt."""
        began = time.monotonic()
        await self.publish()
        return (await self.receipt() - began) * 1000

    async def take_turn(self) -> None:
        before = _cpu(self.process)
        self.last_receipt_ms += [await self.send_one() for _ in range(TURN)]
        # Whoever has sent the last message may still have to tidy up.
        await asyncio.sleep(0.05)
        self.cpu_us_per_message.append((_cpu(self.process) - before) * 1e6 / TURN / self.subscribers)

    def as_json(self) -> dict[str, Any]:
        return {
            "last_receipt_ms": round(statistics.median(self.last_receipt_ms), 1),
            "cpu_us_per_message": round(statistics.median(self.cpu_us_per_message), 1),
            "kb_per_connection": round(self.kb_per_connection, 1),
            "subscribe_seconds": round(self.subscribe_seconds, 1),
            "frame_bytes": self.frame_bytes,
        }


@asynccontextmanager
async def subscribed(
    process: psutil.Process,
    port: int,
    messages: bytes,
    subscribers: int,
    publish: Callable[[], Awaitable[None]],
    settle: Callable[[], Awaitable[None]],
) -> AsyncIterator[Fanout]:
    """A server with all its subscribers, for as long as the block; `settle` lets it collect its garbage."""
    async with _clients(port, 1, messages) as first:
        await Fanout(process, first, publish, 1).receipt()
        await settle()
        empty = process.memory_info().rss
        began = time.monotonic()
        async with _clients(port, subscribers, messages) as clients:
            found = Fanout(process, clients, publish, subscribers)
            found.subscribe_seconds = await found.receipt(SUBSCRIBE_SECONDS) - began
            await settle()
            found.kb_per_connection = (process.memory_info().rss - empty) / 1024 / subscribers
            yield found


async def measure(fanouts: list[Fanout], turns: int) -> None:
    for fanout in fanouts:
        for _ in range(WARM):
            await fanout.send_one()
    for number in range(turns):
        for fanout in fanouts if number % 2 == 0 else reversed(fanouts):
            await fanout.take_turn()


@asynccontextmanager
async def _clients(port: int, number: int, messages: bytes) -> AsyncIterator[asyncio.subprocess.Process]:
    argv = [sys.executable, "-m", "tests.benchmarks.fanout.load", str(port), str(number)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, env=os.environ)
    assert process.stdin is not None
    process.stdin.write(messages)
    process.stdin.close()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
