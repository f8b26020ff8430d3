"""The live subscription of a whole tenancy: for each account every change once and in order, whoever writes beside."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import httpx
import pytest
from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport

from server.config import Settings
from server.graphql.ids import encode
from tests.server.fixtures import NewTenant, Owner, Tenant, running, until_ready, write_event
from tests.server.graphql.groups import Served, connected, follow, joined, numbers, receive, until_held
from tests.server.tunnel import tunnel

QUERY = "subscription($after: Int) { accountsChanged(after: $after) { sequence position account { id } } }"
LIST = "{ tenancy { lastPosition } accounts(first: 100) { nodes { id lastSequence } } }"


async def add_accounts(owner: Owner, tenant: Tenant, number: int) -> list[Tenant]:
    """The tenant with each of so many accounts more."""
    rows = await owner.fetch(
        "INSERT INTO account (tenancy_id, name, email, role, origin, status, account_type_id, created_by_kind,"
        " created_by_name) SELECT tenancy_id, name || n, n || email, role, origin, status, account_type_id,"
        " created_by_kind, created_by_name FROM account, generate_series(1, $2) n WHERE id = $1 RETURNING id",
        tenant.account_id,
        number,
    )
    return [replace(tenant, account_id=row["id"]) for row in rows]


async def ask(served: Served, tenant: Tenant, query: str, **variables: object) -> Any:
    body = {"query": query, "variables": variables}
    async with httpx.AsyncClient() as client:
        answer = await client.post(served.address.http, json=body, headers=tenant.headers)
    return answer.json()["data"]


@dataclass
class List:
    """A list of accounts as a client keeps it live: it knows where it stands, and what it has seen of each account."""

    position: int = 0
    sequences: dict[str, int] = field(default_factory=dict)

    @staticmethod
    async def read(served: Served, tenant: Tenant) -> "List":
        data = await ask(served, tenant, LIST)
        found = {node["id"]: node["lastSequence"] for node in data["accounts"]["nodes"]}
        return List(data["tenancy"]["lastPosition"], found)

    def take(self, change: dict[str, Any]) -> None:
        assert change["position"] == self.position + 1
        account = change["account"]["id"]
        assert change["sequence"] == self.sequences.get(account, 0) + 1
        self.position, self.sequences[account] = change["position"], change["sequence"]

    async def follow(self, served: Served, tenant: Tenant, *, until: int, turns: int) -> None:
        """Follow to a position, with a new connection after every so many changes."""
        while self.position < until:
            async with connected(served, tenant.secret) as socket:
                await follow(socket, tenant, self.position, query=QUERY)
                for _ in range(min(turns, until - self.position)):
                    self.take((await receive(socket))["payload"]["data"]["accountsChanged"])


@asynccontextmanager
async def writers(settings: Settings, number: int) -> AsyncIterator[list[Owner]]:
    connections = [await asyncpg.connect(settings.require("owner_database_url")) for _ in range(number)]
    try:
        yield connections
    finally:
        await asyncio.gather(*(each.close() for each in connections))


async def test_lists_stay_complete_while_many_write_and_clients_come_and_go(
    served: Served, settings: Settings, new_tenant: NewTenant, owner: Owner
) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    accounts = await add_accounts(owner, ours, 12)
    for each in accounts[:5]:
        await write_event(owner, each)

    async def write(connection: Owner, writer: int) -> None:
        for turn in range(30):
            # Many writers to an account, many accounts to a writer, and a neighbour's events between.
            await write_event(connection, accounts[(writer * 5 + turn * turn) % 12], notify=turn % 3 != 0)
            if turn % 4 == 0:
                await write_event(connection, theirs)

    async def begin_anywhere(turns: int) -> List:
        kept = await List.read(served, ours)
        await kept.follow(served, ours, until=5 + 6 * 30, turns=turns)
        return kept

    async with writers(settings, 6) as connections:
        writing = [asyncio.create_task(write(each, number)) for number, each in enumerate(connections)]
        from_the_first = List()
        await asyncio.wait_for(
            asyncio.gather(
                from_the_first.follow(served, ours, until=5 + 6 * 30, turns=20),
                *(begin_anywhere(turns) for turns in (1, 7, 200)),
                *writing,
            ),
            60,
        )
    now = await List.read(served, ours)
    assert from_the_first.sequences == {id_: last for id_, last in now.sequences.items() if last > 0}
    await joined(served, 0, 0)


async def test_a_change_that_commits_late_comes_late_and_is_not_missed(
    served: Served, settings: Settings, tenant: Tenant, owner: Owner
) -> None:
    [other] = await add_accounts(owner, tenant, 1)
    kept = List()
    async with writers(settings, 1) as [late], connected(served, tenant.secret) as socket:
        await follow(socket, tenant, 0, query=QUERY)
        await joined(served, 1, 1)
        async with late.transaction():
            await write_event(late, tenant)
            await write_event(late, tenant)
            await write_event(owner, other)
            kept.take((await receive(socket))["payload"]["data"]["accountsChanged"])
        for _ in range(2):
            kept.take((await receive(socket))["payload"]["data"]["accountsChanged"])
    ours, theirs = (encode("acc", each.account_id) for each in (tenant, other))
    assert kept.sequences == {theirs: 1, ours: 2}
    assert list(kept.sequences) == [theirs, ours]


async def test_without_a_position_it_begins_now(served: Served, tenant: Tenant, owner: Owner) -> None:
    await write_event(owner, tenant)
    async with connected(served, tenant.secret) as socket:
        await follow(socket, tenant, None, query=QUERY)
        await joined(served, 1, 1)
        await write_event(owner, tenant)
        assert await numbers(socket, 1) == [2]


async def test_who_follows_a_tenancy_shares_a_read_and_sees_no_other(
    served: Served, new_tenant: NewTenant, owner: Owner
) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    await write_event(owner, ours)
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(served, ours.secret)) for _ in range(3)]
        for after, socket in enumerate(sockets[:2]):
            await follow(socket, ours, after, query=QUERY)
        # The same account by itself is another group.
        await follow(sockets[2], ours, 1)
        elsewhere = await stack.enter_async_context(connected(served, theirs.secret))
        await follow(elsewhere, theirs, 0, query=QUERY)
        await joined(served, 3, 4)
        assert await numbers(sockets[0], 1) == [1]
        served.reader.statements.clear()
        await write_event(owner, ours)
        for socket in sockets:
            assert await numbers(socket, 1) == [2]
        assert len(served.reader.statements) == 2
        await write_event(owner, theirs)
        assert (await receive(elsewhere))["payload"]["data"]["accountsChanged"] == {
            "sequence": 1,
            "position": 1,
            "account": {"id": encode("acc", theirs.account_id)},
        }
    await joined(served, 0, 0)
    assert served.hub.readers == 0


async def test_who_joins_while_the_group_reads_misses_nothing(served: Served, tenant: Tenant, owner: Owner) -> None:
    await write_event(owner, tenant)
    async with connected(served, tenant.secret) as first, connected(served, tenant.secret) as other:
        await follow(first, tenant, 1, query=QUERY)
        await joined(served, 1, 1)
        served.reader.open.clear()
        await write_event(owner, tenant)
        await until_held(served, 1)
        await write_event(owner, tenant)
        await follow(other, tenant, 0, query=QUERY)
        await until_held(served, 2)
        served.reader.open.set()
        assert await numbers(first, 2) == [2, 3]
        assert await numbers(other, 3) == [1, 2, 3]


@asynccontextmanager
async def watching(client: httpx.AsyncClient, tenant: Tenant) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
    """What a client of the whole server hears from the first change on."""
    transport = WebsocketsTransport(
        url=str(client.base_url.copy_with(scheme="ws", path="/graphql")),
        init_payload={"Authorization": f"Bearer {tenant.secret}"},
    )
    async with Client(transport=transport) as session:
        stream = session.subscribe(GraphQLRequest(QUERY, variable_values={"after": 0}))
        try:
            yield stream
        finally:
            await stream.aclose()


async def test_it_outlives_an_outage(settings: Settings, tenant: Tenant, owner: Owner) -> None:
    accounts = [tenant, *await add_accounts(owner, tenant, 2)]
    kept = List()
    async with (
        tunnel(settings.require("database_url")) as database,
        running(replace(settings, database_url=database.url)) as client,
    ):
        await until_ready(client)
        async with watching(client, tenant) as changes:
            await write_event(owner, tenant)
            kept.take((await anext(changes))["accountsChanged"])
            await database.down()
            for each in accounts * 2:
                await write_event(owner, each)
            waiting = asyncio.ensure_future(anext(changes))
            assert (await client.get("/readyz")).status_code == 503
            assert not waiting.done()
            await database.up()
            kept.take((await asyncio.wait_for(waiting, 10))["accountsChanged"])
            for _ in range(5):
                kept.take((await asyncio.wait_for(anext(changes), 10))["accountsChanged"])
    assert sorted(kept.sequences.values()) == [2, 2, 3]


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (-1, "`after` is the number of an event that was read, or 0 for all of them."),
        (2, "`after` is 2, but the last change of this tenancy is at position 1."),
    ],
)
async def test_a_position_that_was_never_told_is_refused(
    served: Served, tenant: Tenant, owner: Owner, after: int, message: str
) -> None:
    await write_event(owner, tenant)
    async with connected(served, tenant.secret) as socket:
        await follow(socket, tenant, after, query=QUERY)
        [error] = (await receive(socket))["payload"]
    assert (error["message"], error["extensions"], error["path"]) == (
        message,
        {"code": "VALIDATION"},
        ["accountsChanged"],
    )


async def test_a_change_that_cannot_be_read_is_an_error_and_the_rest_comes(
    served: Served, tenant: Tenant, owner: Owner
) -> None:
    query = QUERY.replace("{ id }", "{ id email }")
    async with connected(served, tenant.secret) as socket:
        await follow(socket, tenant, 0, query=query)
        await joined(served, 1, 1)
        await owner.execute("UPDATE account SET last_seq = 1 WHERE id = $1", tenant.account_id)
        await owner.execute(
            "INSERT INTO event (account_id, sequence, tenancy_id, account) SELECT id, 1, tenancy_id,"
            " to_jsonb(account) - 'email' FROM account WHERE id = $1",
            tenant.account_id,
        )
        await write_event(owner, tenant)
        payload = (await receive(socket))["payload"]
        assert payload["errors"][0]["path"] == ["accountsChanged", "account", "email"]
        assert json.dumps(payload["data"]) == "null"
        assert await numbers(socket, 1) == [2]
