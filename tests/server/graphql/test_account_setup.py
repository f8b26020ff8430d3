"""The live subscription over the whole server: every event once, in order, at once, through outages."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from gql.transport.exceptions import TransportQueryError

from server.config import Settings
from server.graphql.ids import encode
from tests.server.fixtures import NewTenant, Owner, Tenant, following, running, until_ready, write_event
from tests.server.tunnel import tunnel


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings) as client:
        await until_ready(client)
        yield client


async def test_a_subscriber_gets_every_event_in_order(server: httpx.AsyncClient, tenant: Tenant, owner: Owner) -> None:
    for _ in range(250):
        await write_event(owner, tenant, notify=False)
    numbers = []
    async with following(server, tenant, after=3) as events:
        async for event in events:
            numbers.append(event["sequence"])
            if len(numbers) in (247, 248, 249):
                await write_event(owner, tenant)
            if len(numbers) == 250:
                break
    assert numbers == list(range(4, 254))


async def test_the_number_need_not_be_selected(server: httpx.AsyncClient, tenant: Tenant, owner: Owner) -> None:
    await write_event(owner, tenant)
    async with following(server, tenant, after=None, select="at account { name status }") as events:
        assert "name" in (await anext(events))["account"]
        for _ in range(20):
            await write_event(owner, tenant)
            assert set(await anext(events)) == {"at", "account"}


async def test_subscribers_side_by_side_miss_nothing_while_events_are_written(
    server: httpx.AsyncClient, tenant: Tenant, owner: Owner
) -> None:
    async def follow(after: int) -> list[int]:
        async with following(server, tenant, after=after) as events:
            return [(await anext(events))["sequence"] for _ in range(30 - after)]

    async def write() -> None:
        for number in range(5, 30):
            await write_event(owner, tenant, notify=number % 3 != 0)

    for _ in range(5):
        await write_event(owner, tenant)
    *followed, _ = await asyncio.wait_for(asyncio.gather(*(follow(after) for after in (0, 3, 5)), write()), 30)
    assert followed == [list(range(after + 1, 31)) for after in (0, 3, 5)]


async def test_a_subscription_outlives_an_outage(settings: Settings, tenant: Tenant, owner: Owner) -> None:
    async with (
        tunnel(settings.require("database_url")) as database,
        running(replace(settings, database_url=database.url)) as client,
    ):
        await until_ready(client)
        async with following(client, tenant) as events:
            await write_event(owner, tenant)
            assert (await anext(events))["sequence"] == 1
            await database.down()
            for _ in range(3):
                await write_event(owner, tenant)
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.3)
            await database.up()
            first = await asyncio.wait_for(waiting, 10)
            rest = [await asyncio.wait_for(anext(events), 10) for _ in range(2)]
    assert [event["sequence"] for event in (first, *rest)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("account", "after", "code"),
    [
        ("acc_" + "0" * 32, 0, "NOT_FOUND"),
        ("theirs", 0, "NOT_FOUND"),
        ("nonsense", 0, "VALIDATION"),
        ("typ_" + "0" * 32, 0, "VALIDATION"),
        ("ours", -1, "VALIDATION"),
        ("ours", 1, "VALIDATION"),
    ],
)
async def test_what_cannot_be_followed_is_an_error(
    server: httpx.AsyncClient, new_tenant: NewTenant, account: str, after: int, code: str
) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    ids = {"ours": encode("acc", ours.account_id), "theirs": encode("acc", theirs.account_id)}
    async with following(server, ours, account=ids.get(account, account), after=after) as events:
        with pytest.raises(TransportQueryError) as caught:
            await anext(events)
    assert caught.value.errors is not None
    assert caught.value.errors[0]["extensions"] == {"code": code}
    assert caught.value.errors[0]["path"] == ["accountSetup"]


async def test_a_number_beyond_the_last_event_is_refused_with_the_last(
    server: httpx.AsyncClient, tenant: Tenant, owner: Owner
) -> None:
    for _ in range(2):
        await write_event(owner, tenant)
    async with following(server, tenant, after=3) as events:
        with pytest.raises(TransportQueryError, match="`after` is 3, but the last event of this account is number 2"):
            await anext(events)
    async with following(server, tenant, after=2) as events:
        await write_event(owner, tenant)
        assert (await anext(events))["sequence"] == 3


async def test_a_subscription_outlives_a_database_that_hangs(
    settings: Settings, tenant: Tenant, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.app.COMMAND_SECONDS", 0.3)
    monkeypatch.setattr("server.graphql.hub.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("server.graphql.hub.POLL_SECONDS", 0.3)
    async with (
        tunnel(settings.require("database_url")) as database,
        running(replace(settings, database_url=database.url)) as client,
    ):
        await until_ready(client)
        async with following(client, tenant) as events:
            await write_event(owner, tenant)
            assert (await anext(events))["sequence"] == 1
            waiting = asyncio.ensure_future(anext(events))
            database.freeze()
            await write_event(owner, tenant)
            response = await client.post("/graphql", json={"query": "{ viewer { name } }"}, headers=tenant.headers)
            assert response.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
            database.thaw()
            assert (await asyncio.wait_for(waiting, 10))["sequence"] == 2
        response = await client.post("/graphql", json={"query": "{ viewer { name } }"}, headers=tenant.headers)
        assert response.json() == {"data": {"viewer": {"name": "admin"}}}
