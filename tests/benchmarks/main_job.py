"""How long the main job takes: `uv run python -m tests.benchmarks.main_job [--rounds N] [--json]`.

Each round starts `freehold up` on a new data directory and again on the same one, creates one account and then five at
once, follows them over the subscription, and runs `freehold demo`. The table shows the median and the worst of the
rounds beside what is aimed at. Times of the creations come from the events themselves, which PostgreSQL's clock stamps.
A delay runs from the commit, as PostgreSQL announces it to a listener of the benchmark's own, to the client's receipt.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from server.graphql.ids import encode
from server.jobs import EVENT_CHANNEL
from tests.running import CLEAN, FREEHOLD, Running, up

AIMS = {
    "up_first_s": 8.0,
    "up_again_s": 8.0,
    "demo_s": 30.0,
    # Five in line would take five times as long as one.
    "five_over_one": 5.0,
    "event_delay_p50_ms": 100.0,
    "event_delay_p99_ms": 100.0,
}


class Commits:
    """When each event was committed, on this process's clock, from the notification that its transaction sends."""

    def __init__(self) -> None:
        self.times: defaultdict[str, list[float]] = defaultdict(list)

    def notified(self, _connection: object, _pid: int, _channel: str, hint: object) -> None:
        self.times[encode("acc", UUID(str(hint).split()[1]))].append(time.monotonic())

    def of(self, account: str, sequence: int) -> float | None:
        """None when the event is older than the listener, or its notification has not arrived yet."""
        times = self.times[account]
        return times[sequence - 1] if sequence <= len(times) else None


@asynccontextmanager
async def listening(running: Running) -> AsyncIterator[Commits]:
    commits = Commits()
    connection = await asyncpg.connect(running.description["databaseUrl"])
    try:
        await connection.add_listener(EVENT_CHANNEL, commits.notified)
        yield commits
    finally:
        await connection.close()


async def follow(running: Running, account: str, commits: Commits, delays: list[float]) -> tuple[datetime, datetime]:
    """When the account was requested and when it was ACTIVE; adds the delay of each live event, in milliseconds."""
    stamps: list[datetime] = []
    live_since = None
    async for event in running.follow(account):
        received = time.monotonic()
        # Before the first event has arrived the client is still connecting.
        live_since = live_since or received
        stamps.append(datetime.fromisoformat(event["at"]))
        committed = commits.of(account, event["sequence"])
        if committed is None:
            # The client was told before the listener was.
            delays.append(0.0)
        elif committed > live_since:
            delays.append((received - committed) * 1000)
    assert event["account"]["status"] == "ACTIVE", event
    return stamps[0], stamps[-1]


async def create(
    running: Running, account_type: str, names: list[str], commits: Commits, delays: list[float]
) -> tuple[float, float]:
    """Seconds from the first request to the last account ACTIVE, and how many were under way at a time on average."""
    accounts = await asyncio.gather(*(running.create_account(name, account_type) for name in names))
    spans = await asyncio.gather(*(follow(running, account, commits, delays) for account in accounts))
    wall = (max(end for _, end in spans) - min(begin for begin, _ in spans)).total_seconds()
    return wall, sum((end - begin).total_seconds() for begin, end in spans) / wall


async def one_round(found: defaultdict[str, list[float]], delays: list[float]) -> None:
    with tempfile.TemporaryDirectory(prefix="freehold-benchmark-") as directory:
        started = time.monotonic()
        async with up(Path(directory, "data")) as running:
            found["up_first_s"].append(time.monotonic() - started)
            nodes = (await running.ask("{ accounts { nodes { id } } }"))["accounts"]["nodes"]
            await asyncio.gather(*(running.events(node["id"]) for node in nodes))
            account_type = await running.create_account_type("Benchmark")
            # The first of a type waits for its organizational unit; it is not what is measured.
            async with listening(running) as commits:
                await create(running, account_type, ["Warm"], commits, [])
                one, _ = await create(running, account_type, ["One"], commits, delays)
                names = [f"Five {number}" for number in range(5)]
                five, side_by_side = await create(running, account_type, names, commits, delays)
            found["one_account_s"].append(one)
            found["five_accounts_s"].append(five)
            found["five_over_one"].append(five / one)
            found["five_side_by_side"].append(side_by_side)
        started = time.monotonic()
        async with up(Path(directory, "data")):
            found["up_again_s"].append(time.monotonic() - started)
    started = time.monotonic()
    demo = await asyncio.create_subprocess_exec(*FREEHOLD, "demo", "--json", env=CLEAN, stdout=asyncio.subprocess.PIPE)
    await demo.communicate()
    assert demo.returncode == 0
    found["demo_s"].append(time.monotonic() - started)


async def measure(rounds: int) -> dict[str, Any]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    delays: list[float] = []
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        await one_round(found, delays)
    quantiles = statistics.quantiles(delays, n=100)
    found["event_delay_p50_ms"], found["event_delay_p99_ms"] = [quantiles[49]], [quantiles[98]]
    return {name: {"median": statistics.median(values), "worst": max(values)} for name, values in found.items()} | {
        "events": len(delays),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def show(result: dict[str, Any]) -> None:
    print(f"{'':24}{'median':>10}{'worst':>10}{'aim':>10}")
    for name, value in result.items():
        if isinstance(value, dict):
            aim = f"{AIMS[name]:.1f}" if name in AIMS else ""
            print(f"{name:24}{value['median']:10.2f}{value['worst']:10.2f}{aim:>10}")
    print(f"{result['events']} events; {result['cores']} cores, load {result['load']:.1f} at the end")


def main() -> None:
    parser = argparse.ArgumentParser(description="How long the main job takes.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args()
    result = asyncio.run(measure(options.rounds))
    show(result)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
