"""The API as a program uses it that insists on an answer."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

AGAIN_SECONDS = 0.2
ANSWER_SECONDS = 10.0
# An answer that asks to try again.
UNAVAILABLE = "UNAVAILABLE"
CREATE = """
mutation($name: String!, $type: ID!, $key: String!) {
  createAccount(input: {name: $name, accountTypeId: $type, idempotencyKey: $key}) {
    account { id setup { id } } userErrors { code message }
  }
}
"""
CREATE_TYPE = """
mutation($name: String!) {
  createAccountType(input: {name: $name}) { accountType { id } userErrors { code message } }
}
"""


@dataclass(frozen=True, slots=True)
class Order:
    """An account that is asked for, by the same key however often."""

    name: str
    account_type: str
    key: str

    @property
    def variables(self) -> dict[str, object]:
        return {"name": self.name, "type": self.account_type, "key": self.key}


@dataclass(frozen=True, slots=True)
class Ordered:
    """The answer: the ids of the account and its setup."""

    account_id: str
    setup_id: str


class Api:
    """Any of the servers; a request that gets no answer goes to the next until one answers.

    `errors` holds the top-level errors that were answered, without those that ask to try again.
    """

    def __init__(self, urls: Sequence[str], token: str) -> None:
        self.urls = urls
        self.headers = {"Authorization": f"Bearer {token}"}
        self.errors: list[str] = []
        self._client = httpx.AsyncClient(headers=self.headers, timeout=ANSWER_SECONDS, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, query: str, **variables: object) -> dict[str, Any]:
        while True:
            with suppress(httpx.TransportError):
                answer = await self._post(query, variables)
                if answer.headers.get("content-type", "").startswith("application/"):
                    body = answer.json()
                    if "errors" not in body:
                        data: dict[str, Any] = body["data"]
                        return data
                    self.errors += told(body["errors"])
            await asyncio.sleep(AGAIN_SECONDS)

    async def abandon(self, seconds: float, query: str, **variables: object) -> None:
        """Send a request, and do not wait longer than this for its answer."""
        with suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(seconds):
                await self._post(query, variables)

    async def create_account_type(self, name: str) -> str:
        return str((await self.ask(CREATE_TYPE, name=name))["createAccountType"]["accountType"]["id"])

    async def create_account(self, name: str, account_type: str) -> str:
        """The account's id."""
        return (await self.order(Order(name, account_type, str(uuid4())))).account_id

    async def order(self, order: Order) -> Ordered:
        """The account and its setup; raises RuntimeError when it is refused."""
        created = (await self.ask(CREATE, **order.variables))["createAccount"]
        if created["account"] is None:
            raise RuntimeError(f"{order.name} was refused: {created['userErrors']}")
        return Ordered(created["account"]["id"], created["account"]["setup"]["id"])

    async def readiness(self) -> list[str]:
        """What is wrong with the servers that are not ready."""
        wrong = []
        for url in self.urls:
            try:
                answer = await self._client.get(f"{url}/readyz")
                if answer.status_code != 200:
                    wrong.append(f"{url} is not ready: {answer.text}")
            except httpx.TransportError as error:
                wrong.append(f"{url} is not ready: {error!r}")
        return wrong

    async def _post(self, query: str, variables: dict[str, object]) -> httpx.Response:
        body = {"query": query, "variables": variables}
        return await self._client.post(f"{random.choice(self.urls)}/graphql", json=body)


def told(errors: Sequence[dict[str, Any]]) -> list[str]:
    """The errors that do not just ask to try again."""
    return [each["message"] for each in errors if each.get("extensions", {}).get("code") != UNAVAILABLE]
