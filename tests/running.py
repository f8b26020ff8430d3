"""`freehold up` in a process of its own, and what a user does with it."""

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
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from server.config import PREFIX, SIMULATOR_CREDENTIALS
from server.embedded.ports import free_port

FREEHOLD = (sys.executable, "-m", "server.cli")
# As on a machine where nobody has configured Freehold.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
READY_SECONDS = 60
FOLLOW_SECONDS = 60

CREATE_TYPE = """
mutation($name: String!) {
  createAccountType(input: {name: $name}) { accountType { id } userErrors { code message } }
}
"""
CREATE_ACCOUNT = """
mutation($name: String!, $type: ID!) {
  createAccount(input: {name: $name, accountTypeId: $type}) { account { id } userErrors { code message } }
}
"""
FOLLOW = """
subscription($id: ID!) {
  accountSetup(accountId: $id, after: 0) {
    sequence at
    account { status }
    stage { name status attempts startedAt finishedAt error { code message } }
  }
}
"""


class Api:
    """The API of a server, for the bearer of a token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"}

    async def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """The data of a request that must succeed."""
        async with httpx.AsyncClient(headers=self.headers, timeout=30) as client:
            answer = await client.post(f"{self.url}/graphql", json={"query": query, "variables": variables})
        result: dict[str, Any] = answer.json()
        assert "errors" not in result, result
        data: dict[str, Any] = result["data"]
        for payload in data.values():
            assert not (isinstance(payload, dict) and payload.get("userErrors")), payload
        return data

    async def create_account_type(self, name: str) -> str:
        return str((await self.ask(CREATE_TYPE, name=name))["createAccountType"]["accountType"]["id"])

    async def create_account(self, name: str, account_type: str) -> str:
        return str((await self.ask(CREATE_ACCOUNT, name=name, type=account_type))["createAccount"]["account"]["id"])

    async def follow(self, account_id: str) -> AsyncIterator[dict[str, Any]]:
        """The events of an account, over graphql-transport-ws, until it is ACTIVE or in ERROR."""
        document = gql(FOLLOW)
        document.variable_values = {"id": account_id}
        transport = WebsocketsTransport(
            url=f"{self.url.replace('http', 'ws', 1)}/graphql", init_payload={**self.headers}
        )
        async with asyncio.timeout(FOLLOW_SECONDS), Client(transport=transport) as session:
            async for result in session.subscribe(document):
                event = result["accountSetup"]
                yield event
                if event["account"]["status"] in ("ACTIVE", "ERROR"):
                    break

    async def events(self, account_id: str) -> list[dict[str, Any]]:
        return [event async for event in self.follow(account_id)]


class Running(Api):
    """A running installation and what it printed when it was ready."""

    def __init__(self, process: asyncio.subprocess.Process, description: Mapping[str, str]) -> None:
        super().__init__(description["url"], description["token"])
        self.process = process
        self.description = description

    async def aws_accounts(self) -> dict[str, str]:
        """What AWS itself says: the name of each account by its id."""
        key, secret = SIMULATOR_CREDENTIALS
        session = aioboto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1")
        async with session.client("organizations", endpoint_url=self.description["awsEndpoint"]) as organizations:
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
    """`freehold up --json`, ready; stopped when the context is left, if it still runs then."""
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
