"""Fixtures of the server's tests; a conftest imports those that its folder needs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp

from server.app import create_app
from server.config import Settings
from server.database import create_engine, transaction
from server.graphql.ids import encode
from server.identity.models import Role
from server.identity.service import create_token
from server.jobs import EVENT_CHANNEL
from server.serving import Server, create_server
from tests.server.waiting import until

# asyncpg has no types of its own.
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(scope="session")
def settings(migrated: Settings) -> Settings:
    return migrated


@pytest.fixture(scope="session")
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """As the server's role, under row-level security."""
    engine = create_engine(settings.require("database_url"))
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
async def worker_engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(settings.require("worker_database_url"))
    yield engine
    await engine.dispose()


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Owner]:
    """A connection past every policy, to arrange and to look."""
    connection = await asyncpg.connect(settings.require("owner_database_url"))
    yield connection
    await connection.close()


@dataclass(frozen=True)
class Tenant:
    """A tenancy with one account, and the secret of an ADMIN token."""

    tenancy_id: UUID
    account_id: UUID
    token_id: UUID
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secret}"}


NewTenant = Callable[[], Awaitable[Tenant]]


@pytest.fixture
async def new_tenant(owner: Owner, worker_engine: AsyncEngine) -> NewTenant:
    async def make() -> Tenant:
        name = uuid4().hex
        tenancy_id: UUID = await owner.fetchval(
            "INSERT INTO tenancy (name, state, home_region, regions, email_template, security_contact_name,"
            " security_contact_email, security_contact_phone) VALUES ($1, 'ACTIVE', 'us-east-1', '{us-east-1}',"
            " 'aws+{id}@example.com', 'S', 's@example.com', '+1') RETURNING id",
            name,
        )
        type_id = await owner.fetchval(
            "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'General', false) RETURNING id",
            tenancy_id,
        )
        account_id: UUID = await owner.fetchval(
            "INSERT INTO account (tenancy_id, name, email, role, origin, status, account_type_id, created_by_kind,"
            " created_by_name) VALUES ($1, $2, $2 || '@example.com', 'MEMBER', 'CREATED', 'INITIALIZING', $3,"
            " 'SYSTEM', 'test') RETURNING id",
            tenancy_id,
            name,
            type_id,
        )
        async with transaction(worker_engine) as session:
            token, secret = await create_token(session, tenancy_id, "admin", Role.ADMIN)
        return Tenant(tenancy_id, account_id, token.id, secret)

    # As the worker and the command line are: row-level security does not bind the owner of this test cluster.
    return make


@pytest.fixture
async def tenant(new_tenant: NewTenant) -> Tenant:
    return await new_tenant()


async def write_event(owner: Owner, tenant: Tenant, *, notify: bool = True) -> int:
    """Commit the account's next event, as the workers do."""
    async with owner.transaction():
        sequence: int = await owner.fetchval(
            "UPDATE account SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq", tenant.account_id
        )
        await owner.execute(
            "INSERT INTO event (account_id, sequence, tenancy_id, account, setup)"
            " SELECT id, last_seq, tenancy_id, to_jsonb(account), '{}' FROM account WHERE id = $1",
            tenant.account_id,
        )
        if notify:
            await owner.execute("SELECT pg_notify($1, $2)", EVENT_CHANNEL, f"{tenant.tenancy_id} {tenant.account_id}")
    return sequence


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[Server]:
    """The application behind a real uvicorn on a port of its own."""
    server = create_server(app, "127.0.0.1", 0)
    # Signals belong to pytest here, so not `serve`, which takes them over.
    task = asyncio.create_task(server._serve())
    async with asyncio.timeout(10):
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the whole server, which runs for as long as the block."""
    async with (
        serving(create_app(settings)) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client,
    ):
        yield client


async def until_ready(client: httpx.AsyncClient) -> None:
    async def ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await until(ready, within=10)


QUERY = """
    subscription($account: ID!, $after: Int) {
      accountSetup(accountId: $account, after: $after) { %s }
    }
"""


@asynccontextmanager
async def following(
    server: httpx.AsyncClient,
    tenant: Tenant,
    *,
    account: str = "",
    after: int | None = 0,
    select: str = "sequence",
    path: str = "/graphql",
) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
    """The events of an account, the tenant's own unless said otherwise, as a real client receives them."""
    transport = WebsocketsTransport(
        url=str(server.base_url.copy_with(scheme="ws", path=path)),
        init_payload={"Authorization": f"Bearer {tenant.secret}"},
    )
    variables = {"account": account or encode("acc", tenant.account_id), "after": after}
    async with Client(transport=transport) as session:

        async def events() -> AsyncGenerator[dict[str, Any], None]:
            async with aclosing(session.subscribe(GraphQLRequest(QUERY % select, variable_values=variables))) as stream:
                async for event in stream:
                    yield event["accountSetup"]

        async with aclosing(events()) as stream:
            yield stream
