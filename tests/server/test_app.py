"""The whole server: its routes, its start and its outages, and the live subscription over the real schema."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from arq.connections import ArqRedis
from gql import Client, gql
from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport
from sqlalchemy.ext.asyncio import AsyncEngine

from server.app import create_app
from server.config import Settings
from server.database import transaction
from server.errors import ConfigurationError
from server.graphql.ids import encode
from server.jobs import Job, enqueue
from server.relay import connect
from tests.server.fixtures import (
    NewTenant,
    Owner,
    Tenant,
    engine,
    new_tenant,
    owner,
    serving,
    settings,
    tenant,
    worker_engine,
    write_event,
)
from tests.server.tunnel import tunnel
from tests.server.waiting import until

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]

FOLLOW = gql("""
    subscription($account: ID!, $after: Int) { accountSetup(accountId: $account, after: $after) { account { name } at } }
""")
NUMBERS = gql("""
    subscription($account: ID!, $after: Int) { accountSetup(accountId: $account, after: $after) { sequence } }
""")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_app(settings)) as server:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            yield client


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings) as client:
        yield client


@asynccontextmanager
async def session(client: httpx.AsyncClient, tenant: Tenant) -> AsyncIterator[AsyncClientSession]:
    transport = WebsocketsTransport(
        url=str(client.base_url.copy_with(scheme="ws", path="/graphql")),
        init_payload={"Authorization": f"Bearer {tenant.secret}"},
    )
    async with Client(transport=transport) as session:
        yield session


def variables(tenant: Tenant, after: int | None = 0) -> dict[str, Any]:
    return {"account": encode("acc", tenant.account_id), "after": after}


def ready(client: httpx.AsyncClient) -> Callable[[], Any]:
    async def is_ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    return is_ready


async def viewer(client: httpx.AsyncClient, tenant: Tenant) -> httpx.Response:
    return await client.post("/graphql", json={"query": "{ viewer { name } }"}, headers=tenant.headers)


async def test_it_says_that_it_lives_and_is_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"database": "ok", "redis": "ok"})


async def test_the_console_leads_to_the_page(client: httpx.AsyncClient) -> None:
    response = await client.get("/console", headers={"accept": "text/html"}, follow_redirects=True)
    assert "GraphiQL" in response.text


async def test_a_query_over_the_real_schema(client: httpx.AsyncClient, tenant: Tenant) -> None:
    await until(ready(client))
    response = await viewer(client, tenant)
    assert response.json() == {"data": {"viewer": {"name": "admin"}}}


async def test_it_does_not_start_without_its_settings(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="FREEHOLD_REDIS_URL"):
        create_app(replace(settings, redis_url=None))


@pytest.mark.parametrize(("origin", "allowed"), [("https://evil.example.com", False), ("https://a.example.com", True)])
async def test_other_sites_need_leave(settings: Settings, origin: str, allowed: bool) -> None:
    async with running(replace(settings, allowed_origins=("https://a.example.com",))) as client:
        headers = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        }
        response = await client.options("/graphql", headers=headers)
        assert response.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert "access-control-allow-credentials" not in response.headers


async def test_it_starts_without_services_and_serves_when_they_come(settings: Settings, tenant: Tenant) -> None:
    async with tunnel(settings.require("database_url")) as database, tunnel(settings.require("redis_url")) as redis:
        away = replace(settings, database_url=database.url, redis_url=redis.url)
        await database.down()
        await redis.down()
        async with running(away) as client:
            response = await client.get("/readyz")
            assert (response.status_code, response.json()) == (503, {"database": "unavailable", "redis": "unavailable"})
            assert (await client.get("/healthz")).status_code == 200
            response = await viewer(client, tenant)
            assert response.status_code == 503
            assert response.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
            await database.up()
            await redis.up()
            await until(ready(client))

            async def served() -> bool:
                return (await viewer(client, tenant)).json() == {"data": {"viewer": {"name": "admin"}}}

            await until(served)


async def test_an_outage_is_an_error_at_its_field_and_passes(settings: Settings, tenant: Tenant) -> None:
    async with tunnel(settings.require("database_url")) as database:
        async with running(replace(settings, database_url=database.url)) as client:
            await until(ready(client))
            assert "errors" not in (await viewer(client, tenant)).json()
            await database.down()
            response = await viewer(client, tenant)
            (error,) = response.json()["errors"]
            assert (response.status_code, error["path"]) == (200, ["viewer"])
            assert error["extensions"] == {"code": "UNAVAILABLE"}
            assert "127.0.0.1" not in response.text
            await database.up()
            assert (await viewer(client, tenant)).json() == {"data": {"viewer": {"name": "admin"}}}


async def test_work_left_in_the_outbox_reaches_the_queue_at_once(
    client: httpx.AsyncClient, settings: Settings, engine: AsyncEngine, tenant: Tenant
) -> None:
    await until(ready(client))
    queue: ArqRedis = connect(settings.require("redis_url"))
    async with transaction(engine, tenant.tenancy_id) as open_session:
        await enqueue(open_session, tenant.tenancy_id, Job.RUN_SETUP, tenant.account_id)

    async def queued() -> bool:
        return bool(await queue.exists(f"arq:job:run_setup:{tenant.account_id}:0"))

    await until(queued, within=2)
    await queue.aclose()


async def test_a_subscriber_gets_every_event_in_order(client: httpx.AsyncClient, tenant: Tenant, owner: Owner) -> None:
    await until(ready(client))
    for _ in range(250):
        await write_event(owner, tenant, notify=False)
    async with session(client, tenant) as live:
        stream = live.subscribe(NUMBERS, variable_values=variables(tenant, after=3))
        async with aclosing(stream) as events:
            numbers = []
            async for event in events:
                numbers.append(event["accountSetup"]["sequence"])
                if len(numbers) in (247, 248, 249):
                    await write_event(owner, tenant)
                if len(numbers) == 250:
                    break
    assert numbers == list(range(4, 254))


async def test_an_event_arrives_within_100_ms_of_its_commit(
    client: httpx.AsyncClient, tenant: Tenant, owner: Owner
) -> None:
    await until(ready(client))
    await write_event(owner, tenant)
    delays = []
    async with session(client, tenant) as live:
        async with aclosing(live.subscribe(FOLLOW, variable_values=variables(tenant, after=None))) as events:
            await anext(events)
            for _ in range(20):
                await write_event(owner, tenant)
                committed = time.monotonic()
                await anext(events)
                delays.append(time.monotonic() - committed)
    assert sorted(delays)[10] < 0.1


async def test_a_subscription_outlives_an_outage(settings: Settings, tenant: Tenant, owner: Owner) -> None:
    async with tunnel(settings.require("database_url")) as database:
        async with running(replace(settings, database_url=database.url)) as client:
            await until(ready(client))
            async with session(client, tenant) as live:
                async with aclosing(live.subscribe(NUMBERS, variable_values=variables(tenant))) as events:
                    await write_event(owner, tenant)
                    assert (await anext(events))["accountSetup"]["sequence"] == 1
                    await database.down()
                    for _ in range(3):
                        await write_event(owner, tenant)
                    waiting = asyncio.ensure_future(anext(events))
                    await asyncio.sleep(0.3)
                    await database.up()
                    numbers = [(await asyncio.wait_for(waiting, 10))["accountSetup"]["sequence"]]
                    for _ in range(2):
                        numbers.append((await asyncio.wait_for(anext(events), 10))["accountSetup"]["sequence"])
    assert numbers == [2, 3, 4]


@pytest.mark.parametrize(
    ("account", "after", "code"),
    [
        ("acc_" + "0" * 32, 0, "NOT_FOUND"),
        ("theirs", 0, "NOT_FOUND"),
        ("nonsense", 0, "VALIDATION"),
        ("typ_" + "0" * 32, 0, "VALIDATION"),
        ("ours", -1, "VALIDATION"),
    ],
)
async def test_what_cannot_be_followed_is_an_error(
    client: httpx.AsyncClient, new_tenant: NewTenant, account: str, after: int, code: str
) -> None:
    await until(ready(client))
    ours, theirs = await new_tenant(), await new_tenant()
    ids = {"ours": encode("acc", ours.account_id), "theirs": encode("acc", theirs.account_id)}
    async with session(client, ours) as live:
        with pytest.raises(TransportQueryError) as caught:
            await anext(live.subscribe(NUMBERS, variable_values={"account": ids.get(account, account), "after": after}))
    assert caught.value.errors is not None
    assert caught.value.errors[0]["extensions"] == {"code": code}
    assert caught.value.errors[0]["path"] == ["accountSetup"]
