"""Whether a page costs more in a large tenancy: `uv run python -m tests.benchmarks.reads.growth [--accounts N]`.

Two databases of one PostgreSQL, a tenancy of 10,000 accounts and one of a million, each with a Freehold of its own,
which answer the first and a late page of the list turn by turn. Loading a million accounts takes some minutes and 8 GB.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from server.embedded import embedded
from server.migrate import migrate
from tests.benchmarks.reads.data import load
from tests.benchmarks.reads.measure import WARM_SECONDS, postmaster_of, take_turn
from tests.benchmarks.reads.servers import US, freehold, running
from tests.conftest import let_owner_create_databases, new_database

SMALL = 10_000
QUESTIONS = ("Q1", "Q4")


async def measure(accounts: int, rounds: int, seconds: float) -> dict[str, Any]:
    """By question, the time of a request in the large tenancy over that in the small one."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="freehold-growth-"))
        services = await stack.enter_async_context(embedded(Path(directory), fsync=False))
        await let_owner_create_databases(services)
        servers = []
        for size in (SMALL, accounts):
            print(f"loading {size} accounts", file=sys.stderr, flush=True)
            settings = await new_database(services)
            await migrate(settings)
            urls = settings.require("owner_database_url"), settings.require("worker_database_url")
            loaded = await load(*urls, size, beside=SMALL)
            environment = freehold(settings.require("database_url"), services.redis_url)
            server = await stack.enter_async_context(running(US, environment, loaded))
            servers.append(replace(server, name=f"{size} accounts"))
        postmaster = postmaster_of(services)
        times: dict[str, list[float]] = {question: [] for question in QUESTIONS}
        for number in range(rounds + 1):
            for question in QUESTIONS:
                turns = {}
                for server in servers if number % 2 else reversed(servers):
                    turns[server.name] = await take_turn(
                        server, postmaster, question, seconds if number else WARM_SECONDS
                    )
                small, large = (turns[server.name] for server in servers)
                if number:
                    times[question].append(small.per_second / large.per_second)
        return {question: round(statistics.median(values), 3) for question, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.reads.growth", description="What a page costs in a large tenancy."
    )
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args()
    found = asyncio.run(measure(options.accounts, options.rounds, options.seconds))
    for question, ratio in found.items():
        print(f"{question} in a tenancy of {options.accounts} accounts takes {ratio:.2f} times as long as of {SMALL}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
