"""The real schema served with everything in the tests' hands, and clients that follow accounts."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from server.config import Settings
from server.context import Context, Viewer
from server.graphql.endpoint import Endpoint
from server.graphql.hub import Hub
from server.graphql.ids import encode
from server.identity.service import Authenticator
from server.planner.mapping import quote
from server.planner.reader import Reader
from server.schema import schema
from server.serving import Server
from tests.server.fixtures import Tenant, serving
from tests.server.graphql.harness import Address, application
from tests.server.waiting import until

QUERY = "subscription($id: ID!, $after: Int) { accountSetup(accountId: $id, after: $after) { sequence } }"


class HeldReader(Reader):
    """Counts the reads of events, and waits before it answers them while `open` is not set."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.statements: list[str] = []
        self.held = 0
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, tenancy_id: UUID, sql: str, values: Sequence[object] = ()) -> bytes | None:
        is_of_events = quote("event") in sql
        if is_of_events:
            self.statements.append(sql)
        answer = await super().fetch(tenancy_id, sql, values)
        if is_of_events:
            self.held += 1
            await self.open.wait()
            self.held -= 1
        return answer


@dataclass
class Served:
    endpoint: Endpoint
    reader: HeldReader
    hub: Hub
    server: Server

    @property
    def address(self) -> Address:
        return Address(self.server.port)


@pytest.fixture
async def served(settings: Settings, engine: AsyncEngine, hub: Hub) -> AsyncIterator[Served]:
    reader = HeldReader(settings.require("database_url"))

    def context_for(viewer: Viewer) -> Context:
        return Context(viewer, engine, reader, hub)

    endpoint = Endpoint(schema, Authenticator(engine), context_for, reader)
    async with serving(application(endpoint)) as server:
        yield Served(endpoint, reader, hub, server)
    await reader.close()


@asynccontextmanager
async def connected(served: Served, secret: str, **options: Any) -> AsyncIterator[ClientConnection]:
    protocols = [Subprotocol("graphql-transport-ws")]
    async with connect(served.address.websocket, subprotocols=protocols, **{"max_queue": None, **options}) as socket:
        payload = {"Authorization": f"Bearer {secret}"}
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert await receive(socket) == {"type": "connection_ack"}
        yield socket


async def receive(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


async def follow(
    socket: ClientConnection,
    tenant: Tenant,
    after: int | None = 0,
    *,
    query: str = QUERY,
    id_: str = "1",
    **variables: object,
) -> None:
    variables |= {"id": encode("acc", tenant.account_id), "after": after}
    payload = {"query": query, "variables": variables}
    await socket.send(json.dumps({"type": "subscribe", "id": id_, "payload": payload}))


async def numbers(socket: ClientConnection, count: int) -> list[int]:
    """The numbers of the next events."""
    found = []
    for _ in range(count):
        [event] = (await receive(socket))["payload"]["data"].values()
        found.append(event["sequence"])
    return found


async def joined(served: Served, groups: int, live: int) -> None:
    """Wait until so many members are live in so many groups."""

    async def are() -> bool:
        found = list(served.endpoint.groups)
        return len(found) == groups and sum(group.live for group in found) == live

    await until(are)


async def until_held(served: Served, reads: int) -> None:
    """Wait until so many reads have their answer and wait."""

    async def are() -> bool:
        return served.reader.held >= reads

    await until(are)
