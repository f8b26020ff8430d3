"""Whether documents that never repeat fill the memory: `uv run python -m tests.benchmarks.reads.memory`.

It prints first what a process of PostgreSQL takes when all that its connection keeps prepared is of one shape, and each
statement has been asked so often that PostgreSQL keeps its plan. Then it sends a Freehold of its own documents of all
these shapes under ever other aliases, so that each is parsed, checked, compiled and prepared anew, and prints the
memory of the server and of all of PostgreSQL as it goes.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID, uuid4

import psutil

from server.config import Settings
from server.context import Viewer
from server.embedded import embedded, postgres, valkey
from server.graphql.request import Operation
from server.identity.models import Role
from server.migrate import migrate
from server.planner.reader import LARGEST_PREPARED, Reader
from server.schema import schema
from tests.benchmarks.reads.data import load
from tests.benchmarks.reads.load import http_request, put_requests
from tests.benchmarks.reads.measure import postmaster_of
from tests.benchmarks.reads.queries import PAGE
from tests.benchmarks.reads.servers import US, freehold, running

ACCOUNTS = 200
STEPS = 10
# PostgreSQL keeps a plan from the sixth time on.
TIMES = 7
# How often the statements that are kept are replaced by others of their shape.
FILLS = 4


def _many(selection: str, times: int) -> str:
    """The selection so many times; `@` is what every alias has to end with."""
    return " ".join(selection.replace("@", f"@_{place}") for place in range(times))


# `@` stands for what no other document has; of all shapes tried, the last has the most memory for a character of SQL.
SHAPES = {
    "a page with everything": f"{{ a@: accounts(first: 2) {{ {PAGE} }} }}",
    "one account": '{ a@: account(by: {awsAccountId: "000000000001"}) { name setup { status stages { name } } } }',
    "many aliases": f"{{ {_many('a@: accounts(first: 1) { nodes { id name } }', 20)} }}",
    "many filters": "{{ {} }}".format(
        _many(
            'a@: accounts(first: 2, filter: {status: [ACTIVE], search: "x", tag: [{key: "team", value: "team 3"}]},'
            " orderBy: {field: NAME, direction: DESC}) { totalCount nodes { id } }",
            3,
        )
    ),
    "connections in a list": f"{{ accounts(first: 1) {{ nodes {{ {_many('a@: setups { nodes { id } }', 10)} }} }} }}",
    "many objects in a list": f"{{ accounts(first: 1) {{ nodes {{ {_many('a@: accountType { name }', 40)} }} }} }}",
}


async def measure_backends(app_url: str, tenancy_id: UUID) -> dict[str, float]:
    """Megabytes that a process of PostgreSQL takes, by the shape of all that is kept, beyond those of an idle one."""
    found = {}
    for name, shape in SHAPES.items():
        reader = Reader(app_url, pool_size=1)
        try:
            before, _ = await _backend(reader, tenancy_id)
            characters = await _fill(reader, tenancy_id, shape)
            after, kept = await _backend(reader, tenancy_id)
        finally:
            await reader.close()
        found[name] = round((after - before) / 2**20, 1)
        print(f"{found[name]:6.1f} MB for {kept:3} statements of {characters:6,} characters: {name}", flush=True)
    return found


async def _fill(reader: Reader, tenancy_id: UUID, shape: str) -> int:
    """Ask documents of a shape until they have been replaced a few times; returns the characters of one's SQL."""
    viewer = Viewer(uuid4(), "benchmark", tenancy_id, Role.READONLY)
    characters = number = 0
    while characters < FILLS * LARGEST_PREPARED:
        planned = schema.documents.plan(Operation(_document(shape, number), None, {}), Role.READONLY)
        assert planned is not None, shape
        for _ in range(TIMES):
            await reader.fetch(tenancy_id, planned.statement.sql, planned.values(viewer))
        characters += len(planned.statement.sql)
        number += 1
    return characters // number


async def _backend(reader: Reader, tenancy_id: UUID) -> tuple[int, int]:
    """The bytes of the reader's one process, and how many statements it has prepared."""
    asked = "select convert_to(json_build_array(pg_backend_pid(), count(*))::text, 'UTF8') from pg_prepared_statements"
    answer = await reader.fetch(tenancy_id, asked)
    assert answer is not None
    process, prepared = json.loads(answer)
    return _unshared(psutil.Process(process)), prepared


async def measure(documents: int) -> tuple[dict[str, float], list[dict[str, float]]]:
    """What `measure_backends` finds, and megabytes of memory after each tenth of the documents.

    They are the server's, and PostgreSQL's without what its processes share.
    """
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
        backends = await measure_backends(services.app_url, loaded.tenancy_id)
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
        return backends, found


def _document(shape: str, number: int) -> str:
    return shape.replace("@", str(number))


def _request(port: int, number: int, headers: dict[str, str]) -> bytes:
    shape = list(SHAPES.values())[number % len(SHAPES)]
    return http_request(port, json.dumps({"query": _document(shape, number)}).encode(), headers)


def _unshared(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(memory.uss)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.reads.memory", description="What documents that never repeat leave behind."
    )
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args()
    backends, found = asyncio.run(measure(options.documents))
    print(f"the second half: {found[-1]['server_mb'] - found[STEPS // 2]['server_mb']:+.1f} MB", file=sys.stderr)
    if options.json:
        print(json.dumps({"backends": backends, "documents": found}))


if __name__ == "__main__":
    main()
