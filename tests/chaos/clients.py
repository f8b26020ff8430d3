"""The users: one requests accounts and insists on an answer, the others each follow one and check what they hear."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from gql import Client, gql
from gql.transport.exceptions import TransportError, TransportQueryError
from gql.transport.websockets import WebsocketsTransport

AGAIN_SECONDS = 0.2
ANSWER_SECONDS = 10.0
# How long a follower stays before it leaves, whatever goes on; longer after each stay in which it heard nothing.
PATIENCE = (0.5, 8.0)
LONGEST_PATIENCE = 60.0
CREATE = """
mutation($name: String!, $type: ID!) {
  createAccount(input: {name: $name, accountTypeId: $type}) { account { id } userErrors { code message } }
}
"""
CREATE_TYPE = """
mutation($name: String!) {
  createAccountType(input: {name: $name}) { accountType { id } userErrors { code message } }
}
"""
FIND = "query($name: String!) { account(by: {name: $name}) { id } }"
FOLLOW = "subscription($id: ID!, $after: Int!) { accountSetup(accountId: $id, after: $after) { sequence } }"


class Api:
    """Any of the servers; a request that gets no answer goes to the next until one answers."""

    def __init__(self, urls: Sequence[str], token: str) -> None:
        self.urls = urls
        self.headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.AsyncClient(headers=self.headers, timeout=ANSWER_SECONDS, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        while True:
            with suppress(httpx.TransportError):
                answer = await self._client.post(f"{random.choice(self.urls)}/graphql", json=body)
                if answer.headers.get("content-type", "").startswith("application/") and "errors" not in answer.json():
                    data: dict[str, Any] = answer.json()["data"]
                    return data
            await asyncio.sleep(AGAIN_SECONDS)

    async def create_account_type(self, name: str) -> str:
        return str((await self.ask(CREATE_TYPE, name=name))["createAccountType"]["accountType"]["id"])

    async def create_account(self, name: str, account_type: str) -> str:
        """The account's id. A request whose answer was lost may have been heard: then the name is in use, by ours."""
        while True:
            created = (await self.ask(CREATE, name=name, type=account_type))["createAccount"]
            if created["account"] is not None:
                return str(created["account"]["id"])
            codes = {error["code"] for error in created["userErrors"]}
            if codes != {"NAME_IN_USE"}:
                raise RuntimeError(f"{name} was refused: {created['userErrors']}")
            found = (await self.ask(FIND, name=name))["account"]
            if found is not None:
                return str(found["id"])

    async def readiness(self) -> list[str]:
        """What is wrong with the servers that are not ready."""
        wrong = []
        for url in self.urls:
            try:
                answer = await self._client.get(f"{url}/readyz")
                if answer.status_code != 200:
                    wrong.append(f"{url}: {answer.text}")
            except httpx.TransportError as error:
                wrong.append(f"{url}: {error!r}")
        return wrong


@dataclass
class Follower:
    """Follows one account, and every now and then leaves and comes back with its cursor."""

    api: Api
    account_id: str
    cursor: int = 0
    reconnects: int = 0
    gaps: int = 0
    out_of_order: int = 0
    refusals: list[str] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        """Until cancelled."""
        quiet = 0
        while True:
            before = self.cursor
            try:
                await self._listen(min(LONGEST_PATIENCE, random.uniform(*PATIENCE) * 2**quiet))
            except (TransportError, OSError, TimeoutError) as error:
                if isinstance(error, TransportQueryError):
                    self.refusals += [each["message"] for each in error.errors or ()]
                await asyncio.sleep(AGAIN_SECONDS)
            self.reconnects += 1
            quiet = 0 if self.cursor > before else min(quiet + 1, 6)

    async def reach(self, sequence: int) -> None:
        """Wait until event number `sequence` was heard."""
        while self.cursor < sequence:
            self.moved.clear()
            await self.moved.wait()

    def take(self, sequence: int) -> None:
        if sequence <= self.cursor:
            self.out_of_order += 1
        else:
            self.gaps += sequence - self.cursor - 1
            self.cursor = sequence
        self.moved.set()

    async def _listen(self, patience: float) -> None:
        transport = WebsocketsTransport(
            url=f"{random.choice(self.api.urls).replace('http', 'ws', 1)}/graphql",
            init_payload={**self.api.headers},
            connect_timeout=5,
            ack_timeout=5,
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        )
        document = gql(FOLLOW)
        document.variable_values = {"id": self.account_id, "after": self.cursor}
        async with Client(transport=transport) as session:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    async for result in session.subscribe(document):
                        self.take(result["accountSetup"]["sequence"])
