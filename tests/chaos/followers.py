"""Those who follow accounts, and every now and then leave and come back with the last number that they heard."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from gql import Client, gql
from gql.transport.exceptions import TransportError, TransportQueryError
from gql.transport.websockets import WebsocketsTransport

from tests.chaos.clients import AGAIN_SECONDS, Api, told

# How long a follower stays before it leaves, whatever goes on; longer after each stay in which it heard nothing.
PATIENCE = (0.5, 8.0)
LONGEST_PATIENCE = 60.0
SETUP = "subscription($id: ID!, $after: Int!) { accountSetup(accountId: $id, after: $after) { sequence } }"
CHANGES = """
subscription($after: Int!) { accountsChanged(after: $after) { position sequence account { id status } } }
"""
BEGIN = "{ tenancy { lastPosition } accounts(first: 100) { nodes { id lastSequence } } }"


@dataclass(kw_only=True)
class Follower(ABC):
    """Counts what is missing between the numbers it hears, and what comes twice or too late."""

    api: Api
    cursor: int = 0
    reconnects: int = 0
    gaps: int = 0
    out_of_order: int = 0
    refusals: list[str] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @abstractmethod
    def subscription(self) -> tuple[str, dict[str, object]]:
        """The document, and its variables for what comes next."""

    @abstractmethod
    def hear(self, told: dict[str, Any]) -> None:
        """Take one result."""

    @abstractmethod
    def last(self, sequences: Mapping[str, int], position: int) -> int:
        """The last number there is, given that of each account and the tenancy's."""

    async def follow(self) -> None:
        """Until cancelled."""
        quiet = 0
        while True:
            before = self.cursor
            try:
                await self._listen(min(LONGEST_PATIENCE, random.uniform(*PATIENCE) * 2**quiet))
            except (TransportError, OSError, TimeoutError) as error:
                if isinstance(error, TransportQueryError):
                    self.refusals += told(error.errors or ())
                await asyncio.sleep(AGAIN_SECONDS)
            self.reconnects += 1
            quiet = 0 if self.cursor > before else min(quiet + 1, 6)

    async def reach(self, number: int) -> None:
        """Wait until this number was heard."""
        while self.cursor < number:
            self.moved.clear()
            await self.moved.wait()

    def take(self, number: int) -> None:
        self.cursor = self.count(self.cursor, number)
        self.moved.set()

    def count(self, last: int, number: int) -> int:
        """Count what is wrong with this number after the last; the highest of the two."""
        if number <= last:
            self.out_of_order += 1
            return last
        self.gaps += number - last - 1
        return number

    async def _listen(self, patience: float) -> None:
        transport = WebsocketsTransport(
            url=f"{random.choice(self.api.urls).replace('http', 'ws', 1)}/graphql",
            init_payload={**self.api.headers},
            connect_timeout=5,
            ack_timeout=5,
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        )
        text, variables = self.subscription()
        document = gql(text)
        document.variable_values = variables
        async with Client(transport=transport) as session:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    async for result in session.subscribe(document):
                        self.hear(result)


@dataclass(kw_only=True)
class SetupFollower(Follower):
    """Follows one account from its first event."""

    account_id: str

    def subscription(self) -> tuple[str, dict[str, object]]:
        return SETUP, {"id": self.account_id, "after": self.cursor}

    def hear(self, told: dict[str, Any]) -> None:
        self.take(told["accountSetup"]["sequence"])

    def last(self, sequences: Mapping[str, int], position: int) -> int:
        return sequences[self.account_id]


@dataclass(kw_only=True)
class ChangesFollower(Follower):
    """Follows the tenancy. `sequences` holds the last of each account; `on_error` is told of accounts in ERROR."""

    on_error: Callable[[str], None]
    sequences: dict[str, int] = field(default_factory=dict)

    async def begin(self) -> None:
        """From now on."""
        now = await self.api.ask(BEGIN)
        self.cursor = now["tenancy"]["lastPosition"]
        self.sequences = {each["id"]: each["lastSequence"] for each in now["accounts"]["nodes"]}

    def subscription(self) -> tuple[str, dict[str, object]]:
        return CHANGES, {"after": self.cursor}

    def hear(self, told: dict[str, Any]) -> None:
        change = told["accountsChanged"]
        account = change["account"]
        # An event that comes again is counted once, by its position.
        if change["position"] > self.cursor:
            self.sequences[account["id"]] = self.count(self.sequences.get(account["id"], 0), change["sequence"])
        self.take(change["position"])
        if account["status"] == "ERROR":
            self.on_error(account["id"])

    def last(self, sequences: Mapping[str, int], position: int) -> int:
        return position
