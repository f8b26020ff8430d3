"""The product as its users run it: `freehold up` and `freehold demo`, whole, from outside."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioboto3
import httpx
import psutil
import pytest
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from server.config import PREFIX, SIMULATOR_CREDENTIALS
from server.embedded import require_free_port
from server.embedded.ports import free_port

FREEHOLD = (sys.executable, "-m", "server.cli")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
ACCOUNTS = "{ accounts { nodes { id name role status awsAccountId } } tenancy { state } }"
READY_SECONDS = 60


class Running:
    """A `freehold up` in a process of its own, and what it printed when it was ready."""

    def __init__(self, process: asyncio.subprocess.Process, description: Mapping[str, str]) -> None:
        self.process = process
        self.url, self.aws = description["url"], description["awsEndpoint"]
        self.description = description
        self.headers = {"Authorization": f"Bearer {description['token']}"}

    async def ask(self, query: str, **variables: object) -> dict[str, Any]:
        async with httpx.AsyncClient(headers=self.headers, timeout=30) as client:
            answer = await client.post(f"{self.url}/graphql", json={"query": query, "variables": variables})
        result: dict[str, Any] = answer.json()
        assert "errors" not in result, result
        data: dict[str, Any] = result["data"]
        return data

    async def aws_accounts(self) -> dict[str, str]:
        """What AWS itself says: the name of each account by its id."""
        key, secret = SIMULATOR_CREDENTIALS
        session = aioboto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1")
        async with session.client("organizations", endpoint_url=self.aws) as organizations:
            pages = organizations.get_paginator("list_accounts").paginate()
            return {each["Id"]: each["Name"] async for page in pages for each in page["Accounts"]}

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, command: str) -> psutil.Process:
        """The process that runs `freehold COMMAND`, not its guard."""
        expected = [*FREEHOLD, command]
        (found,) = (child for child in self.children() if child.cmdline() == expected)
        return found

    async def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(30):
            return await self.process.wait()


@asynccontextmanager
async def up(data_dir: Path, port: int | None = None) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *(*FREEHOLD, "up", "--json", "--data-dir", str(data_dir), "--port", str(port or free_port())),
        env=CLEAN,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            line = await process.stdout.readline()
        yield Running(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def until_active(running: Running, accounts: int) -> dict[str, Any]:
    """Every account as the API shows it once `accounts` of them are ACTIVE, waiting on their subscriptions."""
    found = await running.ask(ACCOUNTS)
    nodes = found["accounts"]["nodes"]
    await asyncio.gather(*(follow(running, node["id"]) for node in nodes))
    found = await running.ask(ACCOUNTS)
    assert [node["status"] for node in found["accounts"]["nodes"]] == ["ACTIVE"] * accounts, found
    return found


async def follow(running: Running, account_id: str) -> list[dict[str, Any]]:
    """The events of an account until it is ACTIVE or in ERROR, over graphql-transport-ws."""
    document = gql(
        "subscription($id: ID!) { accountSetup(accountId: $id, after: 0) { sequence account { status } "
        "stage { name status attempts error { code message } } } }"
    )
    document.variable_values = {"id": account_id}
    transport = WebsocketsTransport(
        url=f"{running.url.replace('http', 'ws')}/graphql", init_payload={**running.headers}
    )
    events = []
    async with asyncio.timeout(60), Client(transport=transport) as session:
        async for result in session.subscribe(document):
            events.append(result["accountSetup"])
            if events[-1]["account"]["status"] in ("ACTIVE", "ERROR"):
                break
    return events


async def demo(*options: str) -> tuple[int, list[dict[str, Any]], str]:
    process = await asyncio.create_subprocess_exec(
        *(*FREEHOLD, "demo", "--json", *options),
        env=CLEAN,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


async def test_the_demo_creates_an_account_and_shows_every_stage() -> None:
    code, lines, errors = await demo()
    assert code == 0, errors
    *events, last = lines
    summary = last["summary"]
    assert summary["account"]["status"] == "ACTIVE"
    assert {each["name"] for each in summary["accounts"]} == {"Management", "Security", "Logging", "Demo"}
    assert [stage["status"] for stage in summary["stages"]] == ["COMPLETED"] * len(summary["stages"])
    for account in summary["accounts"]:
        sequences = [event["sequence"] for event in events if event["account"] == account["name"]]
        assert sequences == list(range(1, account["events"] + 1))


async def test_up_keeps_accounts_over_stops_and_kills(tmp_path: Path) -> None:
    async with up(tmp_path / "data") as first:
        made = await first.ask(
            'mutation { createAccountType(input: {name: "Development"}) { accountType { id } userErrors { message } } }'
        )
        created = await first.ask(
            'mutation($type: ID!) { createAccount(input: {name: "Kept", accountTypeId: $type}) '
            "{ account { id } userErrors { message } } }",
            type=made["createAccountType"]["accountType"]["id"],
        )
        assert created["createAccount"]["userErrors"] == []
        shown = await until_active(first, 4)
        assert shown["tenancy"]["state"] == "ACTIVE"
        in_aws = await first.aws_accounts()
        assert sorted(in_aws.values()) == ["Kept", "Logging", "Security", "master"] or len(in_aws) == 4
        assert {node["awsAccountId"] for node in shown["accounts"]["nodes"]} == set(in_aws)
        children = first.children()
        first.process.kill()
        await first.process.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
        assert alive == []
    async with up(tmp_path / "data") as second:
        assert await second.ask(ACCOUNTS) == shown
        assert await second.aws_accounts() == in_aws
        assert second.description["token"] == first.description["token"]
        assert await second.stop(signal.SIGINT) == 0


async def test_a_second_up_on_the_same_data_is_refused_and_so_is_a_taken_port(tmp_path: Path) -> None:
    async with up(tmp_path / "data") as running:
        port = int(running.url.rsplit(":", 1)[1])
        for directory, expected in (
            (tmp_path / "data", f"The data directory {tmp_path / 'data'} is in use by process"),
            (tmp_path / "other", f"port {port} on 127.0.0.1 is already in use by another process; choose another"),
        ):
            other_port = free_port() if directory.name == "data" else port
            process = await asyncio.create_subprocess_exec(
                *(*FREEHOLD, "up", "--data-dir", str(directory), "--port", str(other_port)),
                env=CLEAN,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            assert process.returncode == 1
            assert expected in errors.decode()
        assert await running.stop(signal.SIGTERM) == 0
    require_free_port("127.0.0.1", port)


async def test_killing_the_worker_in_the_middle_still_ends_active_with_one_aws_account(tmp_path: Path) -> None:
    async with up(tmp_path / "data") as running:
        made = await running.ask(
            'mutation { createAccountType(input: {name: "Development"}) { accountType { id } userErrors { message } } }'
        )
        created = await running.ask(
            'mutation($type: ID!) { createAccount(input: {name: "Killed", accountTypeId: $type}) '
            "{ account { id } userErrors { message } } }",
            type=made["createAccountType"]["accountType"]["id"],
        )
        following = asyncio.create_task(follow(running, created["createAccount"]["account"]["id"]))
        running.named("worker").kill()
        events = await following
        assert events[-1]["account"]["status"] == "ACTIVE", events[-1]
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        await until_active(running, 4)
        names = sorted((await running.aws_accounts()).values())
        assert len(names) == 4
        assert {"Killed", "Logging", "Security"} < set(names)


@pytest.mark.parametrize("command", [["server"], ["worker"], ["migrate"], ["token", "list", "--tenancy", "x"]])
async def test_a_missing_setting_is_named(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*FREEHOLD, *command, env=CLEAN, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().startswith("freehold: FREEHOLD_")
    assert "is not set. It is" in errors.decode()
