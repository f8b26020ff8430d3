"""Subscribers that share a group: one read for all of them, and for each of them every event once and in order."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.config import Settings
from server.database import transaction
from server.graphql import groups
from server.identity.models import Role
from server.identity.service import create_token
from tests.server.fixtures import NewTenant, Owner, Tenant, following, running, until_ready, write_event
from tests.server.graphql.groups import QUERY, Served, connected, follow, joined, numbers, receive, until_held
from tests.server.tunnel import tunnel


async def test_one_read_for_an_event_however_many_follow(served: Served, tenant: Tenant, owner: Owner) -> None:
    await write_event(owner, tenant)
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(served, tenant.secret)) for _ in range(5)]
        for number, socket in enumerate(sockets):
            # However the operation is called, however it is spelt, wherever it begins.
            await follow(socket, tenant, number % 2, query=QUERY + " " * number, id_=f'"{number}\\')
        await joined(served, 1, 5)
        assert [await numbers(socket, 1) for socket in sockets[::2]] == [[1]] * 3
        served.reader.statements.clear()
        await write_event(owner, tenant)
        for number, socket in enumerate(sockets):
            payload = {"data": {"accountSetup": {"sequence": 2}}}
            assert await receive(socket) == {"id": f'"{number}\\', "type": "next", "payload": payload}
        assert len(served.reader.statements) == 1
    await joined(served, 0, 0)
    assert served.hub.readers == 0


async def test_what_is_asked_and_who_asks_make_the_group(
    served: Served, new_tenant: NewTenant, worker_engine: AsyncEngine
) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    async with transaction(worker_engine) as session:
        _, readonly = await create_token(session, ours.tenancy_id, "reader", Role.READONLY)
    async with AsyncExitStack() as stack:
        await follow(await stack.enter_async_context(connected(served, readonly)), ours)
        socket = await stack.enter_async_context(connected(served, ours.secret))
        await follow(socket, ours)
        await follow(await stack.enter_async_context(connected(served, theirs.secret)), theirs)
        await follow(socket, ours, query=QUERY.replace("sequence", "sequence at"), id_="2")
        await follow(socket, ours, query=QUERY.replace("accountSetup", "other: accountSetup"), id_="3")
        await joined(served, 5, 5)


async def test_who_joins_while_the_group_reads_misses_nothing(served: Served, tenant: Tenant, owner: Owner) -> None:
    for _ in range(3):
        await write_event(owner, tenant)
    async with connected(served, tenant.secret) as first, connected(served, tenant.secret) as other:
        await follow(first, tenant, 3)
        await joined(served, 1, 1)
        served.reader.open.clear()
        await write_event(owner, tenant)
        await until_held(served, 1)
        # The group has read and not sent it yet; 5 comes after its read.
        await write_event(owner, tenant)
        for after in (0, 2, 3, 4, 5):
            await follow(other, tenant, after, id_=str(after))
        await joined(served, 1, 4)
        await until_held(served, 3)
        served.reader.open.set()
        assert await numbers(first, 2) == [4, 5]
        found: dict[str, list[int]] = {}
        for _ in range(5 + 3 + 2 + 1):
            message = await receive(other)
            found.setdefault(message["id"], []).append(message["payload"]["data"]["accountSetup"]["sequence"])
        assert found == {str(after): list(range(after + 1, 6)) for after in (0, 2, 3, 4)}
        await write_event(owner, tenant)
        assert await numbers(first, 1) == [6]
        assert await numbers(other, 5) == [6] * 5


async def test_members_come_and_go_while_events_are_written(served: Served, tenant: Tenant, owner: Owner) -> None:
    async def come_and_go(number: int) -> list[int]:
        found: list[int] = []
        while len(found) < 60:
            async with connected(served, tenant.secret) as socket:
                await follow(socket, tenant, len(found))
                found += await numbers(socket, min(number, 60 - len(found)))
        return found

    async def write() -> None:
        for number in range(60):
            await write_event(owner, tenant, notify=number % 2 == 0)

    *found, _ = await asyncio.wait_for(asyncio.gather(*map(come_and_go, (1, 3, 7, 20, 60)), write()), 60)
    assert found == [list(range(1, 61))] * 5
    await joined(served, 0, 0)


async def test_an_event_that_the_group_cannot_read_is_an_error_for_each(
    served: Served, tenant: Tenant, owner: Owner
) -> None:
    query = QUERY.replace("sequence", "sequence account { email }")
    async with connected(served, tenant.secret) as first, connected(served, tenant.secret) as second:
        await follow(first, tenant, query=query)
        await joined(served, 1, 1)
        await write_event(owner, tenant)
        assert "errors" not in (await receive(first))["payload"]
        await owner.execute(
            "INSERT INTO event (account_id, sequence, tenancy_id, account, setup) SELECT account_id, 2, tenancy_id,"
            " account - 'email', setup FROM event WHERE account_id = $1",
            tenant.account_id,
        )
        await owner.execute("UPDATE account SET last_seq = 2 WHERE id = $1", tenant.account_id)
        await follow(second, tenant, query=query)
        assert "errors" not in (await receive(second))["payload"]
        for socket in (first, second):
            [error] = (await receive(socket))["payload"]["errors"]
            assert error["path"] == ["accountSetup", "account", "email"]
        await write_event(owner, tenant)
        for socket in (first, second):
            assert (await receive(socket))["payload"]["data"]["accountSetup"]["sequence"] == 3


async def test_others_get_their_turn_while_many_events_go_to_many(
    served: Served, tenant: Tenant, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "AT_A_TIME", 10)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with connected(served, tenant.secret) as socket:
        await follow(socket, tenant)
        await joined(served, 1, 1)
        [group] = served.endpoint.groups
        sent: list[int] = []
        others = [groups.Member("1", 0, lambda _frame: sent.append(turns), lambda: None) for _ in range(35)]
        for member in others:
            group.add(member)
            assert group.admit(member)
        served.reader.open.clear()
        await write_event(owner, tenant)
        await until_held(served, 1)
        for _ in range(19):
            await write_event(owner, tenant)
        ticking = asyncio.create_task(take_turns())
        served.reader.open.set()
        assert await numbers(socket, 20) == list(range(1, 21))
        ticking.cancel()
        for member in others:
            member.leave()
    assert len(sent) == 20 * len(others)
    assert max(Counter(sent).values()) <= 10


async def test_an_operation_that_is_complete_gets_nothing_more(served: Served, tenant: Tenant, owner: Owner) -> None:
    async with connected(served, tenant.secret) as socket:
        await follow(socket, tenant, id_="1")
        await follow(socket, tenant, id_="2")
        await joined(served, 1, 2)
        await socket.send(json.dumps({"type": "complete", "id": "1"}))
        await joined(served, 1, 1)
        await write_event(owner, tenant)
        assert (await receive(socket))["id"] == "2"
        await follow(socket, tenant, id_="1", after=1)
        await joined(served, 1, 2)
        await write_event(owner, tenant)
        assert {(await receive(socket))["id"] for _ in range(2)} == {"1", "2"}


async def test_a_group_and_who_joins_it_outlive_an_outage(settings: Settings, tenant: Tenant, owner: Owner) -> None:
    async def follow_on(client: httpx.AsyncClient, after: int, seen: asyncio.Event) -> list[int]:
        found = []
        async with following(client, tenant, after=after) as events:
            async for event in events:
                found.append(event["sequence"])
                seen.set()
                if found[-1] == 20:
                    return found
        raise AssertionError("the subscription has ended")

    for _ in range(5):
        await write_event(owner, tenant)
    async with (
        tunnel(settings.require("database_url")) as database,
        running(replace(settings, database_url=database.url)) as client,
    ):
        await until_ready(client)
        seen = [asyncio.Event() for _ in range(6)]
        followers = [asyncio.create_task(follow_on(client, at % 5, each)) for at, each in enumerate(seen)]
        await asyncio.gather(*(each.wait() for each in seen))
        await database.down()
        for _ in range(10):
            await write_event(owner, tenant)
        await database.up()
        for _ in range(5):
            await write_event(owner, tenant)
        found = await asyncio.wait_for(asyncio.gather(*followers), 20)
    assert found == [list(range(at % 5 + 1, 21)) for at in range(6)]
