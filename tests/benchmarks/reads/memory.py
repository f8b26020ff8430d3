"""Whether documents that never repeat fill the memory: `uv run python -m tests.benchmarks.reads.memory`.

It sends a Freehold of its own a page of accounts under ever other aliases and page sizes, so that each is parsed,
checked, compiled and prepared anew, and prints the memory of the server and of all of PostgreSQL as it goes.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from server.config import Settings
from server.embedded import embedded, postgres, valkey
from server.migrate import migrate
from tests.benchmarks.reads.data import load
from tests.benchmarks.reads.load import http_request, put_requests
from tests.benchmarks.reads.measure import postmaster_of
from tests.benchmarks.reads.queries import PAGE
from tests.benchmarks.reads.servers import US, freehold, running

ACCOUNTS = 200
STEPS = 10


async def measure(documents: int) -> list[dict[str, float]]:
    """Megabytes of the server's memory, and of PostgreSQL's without what its processes share, after each tenth."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="freehold-memory-"))
        services = await stack.enter_async_context(
            embedded(Path(directory), services={postgres.NAME, valkey.NAME}, fsync=False)
        )
        await migrate(
            Settings(
                owner_database_url=services.owner_url,
                database_url=services.app_url,
                worker_database_url=services.worker_url,
            )
        )
        loaded = await load(services.owner_url, services.worker_url, ACCOUNTS)
        server = await stack.enter_async_context(running(US, freehold(services.app_url, services.redis_url), loaded))
        postmaster = postmaster_of(services)
        headers = {"authorization": f"Bearer {loaded.secret}"}
        found = []
        for step in range(STEPS + 1):
            numbers = range(max(0, step - 1) * documents // STEPS, step * documents // STEPS)
            await put_requests(server.port, [_request(server.port, number, headers) for number in numbers])
            found.append(
                {
                    "documents": float(step * documents // STEPS),
                    "server_mb": round(server.process.memory_info().rss / 2**20, 1),
                    "postgres_mb": round(sum(_unshared(each) for each in postmaster.children()) / 2**20, 1),
                }
            )
            print("{documents:8.0f} documents: server {server_mb} MB, PostgreSQL {postgres_mb} MB".format(**found[-1]))
        return found


def _request(port: int, number: int, headers: dict[str, str]) -> bytes:
    query = f"query Q{number} {{ a{number}: accounts(first: {number % 3 + 1}) {{ {PAGE} }} }}"
    return http_request(port, json.dumps({"query": query}).encode(), headers)


def _unshared(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(memory.uss)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.reads.memory", description="What documents that never repeat leave behind."
    )
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="one JSON list as the last line of stdout")
    options = parser.parse_args()
    found = asyncio.run(measure(options.documents))
    print(f"the second half: {found[-1]['server_mb'] - found[STEPS // 2]['server_mb']:+.1f} MB", file=sys.stderr)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
