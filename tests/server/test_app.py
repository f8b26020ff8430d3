"""The whole server: its routes, its start and its outages."""

import asyncio
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest
from arq.connections import ArqRedis
from gql.transport.exceptions import TransportError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from server.app import create_app, serve
from server.config import Settings
from server.database import create_engine, transaction
from server.errors import ConfigurationError, FreeholdError
from server.jobs import Job, enqueue
from server.outages import is_away
from server.relay import connect
from tests.server.fixtures import (
    Owner,
    Tenant,
    engine,
    following,
    new_tenant,
    owner,
    running,
    settings,
    tenant,
    until_ready,
    worker_engine,
    write_event,
)
from tests.server.tunnel import tunnel
from tests.server.waiting import until

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings) as client:
        yield client


async def viewer(client: httpx.AsyncClient, tenant: Tenant) -> httpx.Response:
    return await client.post("/graphql", json={"query": "{ viewer { name } }"}, headers=tenant.headers)


async def test_it_says_that_it_lives_and_is_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"database": "ok", "redis": "ok"})


async def test_the_console_leads_to_the_page(client: httpx.AsyncClient) -> None:
    response = await client.get("/console", headers={"accept": "text/html"}, follow_redirects=True)
    assert "GraphiQL" in response.text


async def test_the_address_alone_leads_to_the_page(client: httpx.AsyncClient) -> None:
    response = await client.get("/", headers={"accept": "text/html"})
    assert (response.status_code, response.headers["location"]) == (307, "/graphql")


@pytest.mark.parametrize("path", ["/graphql", "/graphql/"])
async def test_a_slash_at_the_end_changes_nothing(
    client: httpx.AsyncClient, tenant: Tenant, owner: Owner, path: str
) -> None:
    await until_ready(client)
    assert "GraphiQL" in (await client.get(path, headers={"accept": "text/html"})).text
    response = await client.post(path, json={"query": "{ viewer { name } }"}, headers=tenant.headers)
    assert response.json() == {"data": {"viewer": {"name": "admin"}}}
    async with following(client, tenant, path=path) as events:
        await write_event(owner, tenant)
        assert await anext(events) == {"sequence": 1}


async def test_a_query_over_the_real_schema(client: httpx.AsyncClient, tenant: Tenant) -> None:
    await until_ready(client)
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
            assert (response.status_code, response.json()) == (
                503,
                {"database": "unavailable", "redis": "unavailable"},
            )
            assert (await client.get("/healthz")).status_code == 200
            response = await viewer(client, tenant)
            assert response.status_code == 503
            assert response.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
            await database.up()
            await redis.up()
            await until_ready(client)

            async def served() -> bool:
                return "data" in (await viewer(client, tenant)).json()

            await until(served)


async def test_without_redis_it_stays_in_service_and_says_so(settings: Settings, tenant: Tenant) -> None:
    async with (
        tunnel(settings.require("redis_url")) as redis,
        running(replace(settings, redis_url=redis.url)) as client,
    ):
        await until_ready(client)
        await redis.down()
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"database": "ok", "redis": "unavailable"})
        assert (await viewer(client, tenant)).status_code == 200
        await redis.up()

        async def back() -> bool:
            return bool((await client.get("/readyz")).json()["redis"] == "ok")

        await until(back)


async def test_an_outage_is_an_error_at_its_field_and_passes(settings: Settings, tenant: Tenant) -> None:
    async with (
        tunnel(settings.require("database_url")) as database,
        running(replace(settings, database_url=database.url)) as client,
    ):
        await until_ready(client)
        assert "errors" not in (await viewer(client, tenant)).json()
        await database.down()
        response = await viewer(client, tenant)
        (error,) = response.json()["errors"]
        assert (response.status_code, error["path"]) == (200, ["viewer"])
        assert error["extensions"] == {"code": "UNAVAILABLE"}
        assert "127.0.0.1" not in response.text
        await database.up()
        assert (await viewer(client, tenant)).json() == {"data": {"viewer": {"name": "admin"}}}


async def test_writing_to_a_database_that_hangs_is_given_up(settings: Settings) -> None:
    async with tunnel(settings.require("database_url")) as database:
        engine = create_engine(database.url, command_seconds=0.2)

        async def ask() -> None:
            async with transaction(engine) as session:
                await session.execute(text("SELECT 1"))

        await ask()
        database.freeze()
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises((TimeoutError, DBAPIError)) as caught:
                await ask()
            assert is_away(caught.value)
            assert time.monotonic() - started < 8
        database.thaw()
        await ask()
        await engine.dispose()


async def test_work_left_in_the_outbox_reaches_the_queue_at_once(
    client: httpx.AsyncClient, settings: Settings, engine: AsyncEngine, tenant: Tenant
) -> None:
    await until_ready(client)
    queue: ArqRedis = connect(settings.require("redis_url"))
    async with transaction(engine, tenant.tenancy_id) as open_session:
        await enqueue(open_session, tenant.tenancy_id, Job.RUN_SETUP, tenant.account_id)

    async def queued() -> bool:
        return bool(await queue.exists(f"arq:job:run_setup:{tenant.account_id}:0"))

    await until(queued, within=2)
    await queue.aclose()


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        (
            "127.0.0.1",
            None,
            "is already in use by another process: end that one, or choose another port with FREEHOLD_PORT",
        ),
        # RFC 5737 and RFC 2606: nobody's address, and nobody's name.
        (
            "192.0.2.1",
            8000,
            "cannot listen on port 8000 of 192.0.2.1: Cannot assign requested address; see FREEHOLD_HOST",
        ),
        ("nowhere.invalid", 8000, "; see FREEHOLD_HOST"),
    ],
)
async def test_a_place_that_cannot_be_listened_on_is_named(
    settings: Settings, host: str, port: int | None, expected: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = replace(settings, host=host, port=port or taken.getsockname()[1])
        with pytest.raises(FreeholdError, match=f"{re.escape(expected)}$"):
            await asyncio.to_thread(serve, wrong)


async def test_a_server_process_stops_in_time_with_a_subscription_open(settings: Settings, tenant: Tenant) -> None:
    """As `freehold server` runs it: a process of its own, uvloop, and SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "FREEHOLD_DATABASE_URL": settings.require("database_url"),
        "FREEHOLD_REDIS_URL": settings.require("redis_url"),
        "FREEHOLD_PORT": str(port),
    }
    program = "from server.app import serve; from server.config import Settings; serve(Settings.from_environment())"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=environment)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def is_up() -> bool:
                with suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await until(is_up, within=30)
            async with following(client, tenant) as events:
                waiting = asyncio.ensure_future(anext(events))
                assert (await viewer(client, tenant)).status_code == 200
                started = time.monotonic()
                process.terminate()
                await asyncio.wait_for(process.wait(), 10)
                assert time.monotonic() - started < 5
                with pytest.raises(TransportError):
                    await waiting
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
