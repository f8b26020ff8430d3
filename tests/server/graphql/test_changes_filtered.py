"""A filtered list stays live: it hears of what comes into it and of what leaves it, and of nothing else."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.config import Settings
from server.context import Context, Viewer
from server.graphql.ids import encode
from server.identity.models import Role
from server.schema import schema
from tests.server.fixtures import Owner, Tenant, write_event
from tests.server.graphql.groups import Served, connected, follow, joined, receive, until_held
from tests.server.graphql.test_accounts_changed import add_accounts, ask, writers
from tests.server.waiting import until

QUERY = """subscription($after: Int, $filter: AccountFilter) {
  accountsChanged(after: $after, filter: $filter) { position sequence matches account { id } }
}"""
Filter = Mapping[str, object]


async def change(owner: Owner, tenant: Tenant, *, tags: Mapping[str, str] | None = None, **columns: object) -> None:
    """Commit a change of the account with its event."""
    async with owner.transaction():
        for name, value in columns.items():
            await owner.execute(f"UPDATE account SET {name} = $2 WHERE id = $1", tenant.account_id, value)
        if tags is not None:
            await owner.execute("DELETE FROM tag WHERE account_id = $1", tenant.account_id)
            rows = [(tenant.account_id, tenant.tenancy_id, *tag) for tag in tags.items()]
            await owner.executemany(
                "INSERT INTO tag (account_id, tenancy_id, key, value) VALUES ($1, $2, $3, $4)", rows
            )
        await write_event(owner, tenant)


async def changes(socket: Any, count: int) -> list[tuple[int, bool]]:
    """Of the next changes, the position and whether the account matches."""
    found = [(await receive(socket))["payload"]["data"]["accountsChanged"] for _ in range(count)]
    return [(each["position"], each["matches"]) for each in found]


async def read_alone(
    served: Served, engine: AsyncEngine, tenant: Tenant, filter_: Filter, count: int
) -> list[tuple[int, bool]]:
    """The same for a subscriber of the ordinary executor."""
    viewer = Viewer(tenant.token_id, "admin", tenant.tenancy_id, Role.ADMIN)
    stream: Any = await schema.subscribe(
        QUERY, {"after": 0, "filter": filter_}, context_value=Context(viewer, engine, served.reader, served.hub)
    )
    async with aclosing(stream):
        found = [(await anext(stream)).data["accountsChanged"] for _ in range(count)]
    return [(each["position"], each["matches"]) for each in found]


async def is_so(condition: bool) -> bool:
    return condition


CASES: dict[str, tuple[Filter, dict[str, Any], dict[str, Any]]] = {
    "status": ({"status": ["ACTIVE", "ERROR"]}, {"status": "ERROR"}, {"status": "CLOSED"}),
    "tag": ({"tag": [{"key": "team", "value": "a"}]}, {"tags": {"team": "a", "x": "y"}}, {"tags": {"team": "b"}}),
    "all tags": (
        {"tag": [{"key": "team"}, {"key": "x", "value": "1"}, {"key": "y"}]},
        {"tags": {"team": "", "x": "1", "y": "2"}},
        {"tags": {"team": "", "x": "1"}},
    ),
    "name": ({"search": "PAY_ments"}, {"name": "old pay_Ments!"}, {"name": "payments"}),
    "several": (
        {"search": "111122223333", "tag": [{"key": "k"}], "status": ["ACTIVE"], "role": ["LOGGING"]},
        {"aws_account_id": "111122223333", "tags": {"k": ""}, "status": "ACTIVE", "role": "LOGGING"},
        {"status": "SUSPENDED"},
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_comes_into_the_list_and_what_leaves_it(
    served: Served, tenant: Tenant, owner: Owner, engine: AsyncEngine, case: str
) -> None:
    filter_, into, out_of = CASES[case]
    [other] = await add_accounts(owner, tenant, 1)
    async with connected(served, tenant.secret) as live:
        await follow(live, tenant, 0, query=QUERY, filter=filter_)
        await joined(served, 1, 1)
        await change(owner, tenant)
        await change(owner, tenant, **into)
        await change(owner, other)
        await change(owner, tenant)
        await change(owner, tenant, **out_of)
        await change(owner, tenant)
        await change(owner, other)
        await change(owner, tenant, **into)
        expected = [(2, True), (4, True), (5, False), (8, True)]
        assert await changes(live, 4) == expected
    async with connected(served, tenant.secret) as later:
        await follow(later, tenant, 0, query=QUERY, filter=filter_)
        assert await changes(later, 4) == expected
        # What it was told last before it went away decides, not what matched then.
        await follow(later, tenant, 4, query=QUERY, filter=filter_, id_="2")
        assert await changes(later, 2) == expected[2:]
    assert await read_alone(served, engine, tenant, filter_, 4) == expected


async def test_an_account_that_moves_between_types(served: Served, tenant: Tenant, owner: Owner) -> None:
    make = "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, $2, false) RETURNING id"
    types = [await owner.fetchval(make, tenant.tenancy_id, name) for name in ("One", "Two")]
    async with connected(served, tenant.secret) as socket:
        for id_, type_ in enumerate(types):
            filter_ = {"accountTypeId": [encode("typ", type_)]}
            await follow(socket, tenant, 0, query=QUERY, filter=filter_, id_=str(id_))
        await joined(served, 2, 2)
        heard = []
        for type_ in types:
            await change(owner, tenant, account_type_id=type_)
        for _ in range(3):
            message = await receive(socket)
            data = message["payload"]["data"]["accountsChanged"]
            heard.append((data["position"], message["id"], data["matches"]))
    assert sorted(heard) == [(1, "0", True), (2, "0", False), (2, "1", True)]


async def test_what_restricts_nothing_matches_everything(served: Served, tenant: Tenant, owner: Owner) -> None:
    async with connected(served, tenant.secret) as socket:
        nothing: list[Filter | None] = [None, {}, {"status": [], "tag": None}]
        for number, filter_ in enumerate(nothing):
            await follow(socket, tenant, 0, query=QUERY, filter=filter_, id_=str(number))
        await joined(served, 1, 3)
        await change(owner, tenant)
        await change(owner, tenant)
        assert await changes(socket, 6) == [(1, True)] * 3 + [(2, True)] * 3


LIST = """query($filter: AccountFilter) {
  tenancy { lastPosition } accounts(first: 100, filter: $filter) { nodes { id } }
}"""


@dataclass
class List:
    """A filtered list as a client keeps it live."""

    filter: Filter
    position: int = 0
    rows: set[str] = field(default_factory=set)

    async def read(self, served: Served, tenant: Tenant) -> None:
        data = await ask(served, tenant, LIST, filter=self.filter)
        self.position, self.rows = data["tenancy"]["lastPosition"], {n["id"] for n in data["accounts"]["nodes"]}

    async def follow(self, served: Served, tenant: Tenant, *, until: int, turns: int) -> None:
        """Follow to a position that it hears of, with a new connection after every so many changes."""
        while self.position < until:
            async with connected(served, tenant.secret) as socket:
                await follow(socket, tenant, self.position, query=QUERY, filter=self.filter)
                for _ in range(turns):
                    told = (await receive(socket))["payload"]["data"]["accountsChanged"]
                    assert told["position"] > self.position
                    self.position = told["position"]
                    (self.rows.add if told["matches"] else self.rows.discard)(told["account"]["id"])
                    if self.position == until:
                        return


FILTERS: tuple[Filter, ...] = (
    {"status": ["ACTIVE"]},
    {"tag": [{"key": "team", "value": "a"}]},
    {"tag": [{"key": "team"}], "search": "x", "status": ["ACTIVE", "ERROR"]},
)


async def test_filtered_lists_stay_right_while_many_write_and_clients_come_and_go(
    served: Served, settings: Settings, tenant: Tenant, owner: Owner
) -> None:
    accounts = await add_accounts(owner, tenant, 6)
    for account in accounts:
        await change(owner, account)
    chance = random.Random(7)
    last = len(accounts) + 4 * 25 + 1

    async def write(connection: Owner, writer: int) -> None:
        for turn in range(25):
            account = accounts[(writer + turn * turn) % 6]
            name = f"{chance.choice('xy')} {account.account_id}"
            tags = {"team": chance.choice("ab")} if chance.random() < 0.7 else {}
            await change(connection, account, name=name, tags=tags, status=chance.choice(("ACTIVE", "ERROR", "CLOSED")))

    async def write_all() -> None:
        async with writers(settings, 4) as connections:
            await asyncio.gather(*(write(each, number) for number, each in enumerate(connections)))
        # What each of the lists hears of.
        await change(owner, accounts[0], status="ACTIVE", name="x", tags={"team": "a"})

    lists = [List(filter_) for filter_ in FILTERS for _ in range(2)]
    for kept in lists[1::2]:
        await kept.read(served, tenant)
    turns = (1, 3, 5, 2, 40, 1)
    following = (kept.follow(served, tenant, until=last, turns=n) for kept, n in zip(lists, turns, strict=True))
    await asyncio.wait_for(asyncio.gather(*following, write_all()), 60)
    for kept in lists:
        now = List(kept.filter)
        await now.read(served, tenant)
        assert kept.rows == now.rows
    await joined(served, 0, 0)


async def test_who_has_the_same_filter_shares_a_read(served: Served, tenant: Tenant, owner: Owner) -> None:
    filter_ = {"status": ["ACTIVE"], "tag": [{"key": "team"}]}
    async with connected(served, tenant.secret) as first, connected(served, tenant.secret) as second:
        for socket in (first, second):
            await follow(socket, tenant, 0, query=QUERY, filter=filter_)
        await joined(served, 1, 2)
        served.reader.open.clear()
        await change(owner, tenant, status="ACTIVE", tags={"team": "a"})
        await until_held(served, 1)
        await follow(second, tenant, 1, query=QUERY, filter={**filter_, "status": ["ERROR"]}, id_="2")
        await joined(served, 2, 3)
        await until_held(served, 2)
        # Three members, two groups, and a group reads one thing at a time.
        assert served.reader.held == 2
        served.reader.open.set()
        for socket in (first, second):
            assert await changes(socket, 1) == [(1, True)]
        await change(owner, tenant, status="ERROR")
        assert await changes(first, 1) == [(2, False)]
        assert sorted(await changes(second, 2)) == [(2, False), (2, True)]


async def test_what_is_left_out_is_read_once_and_in_parts(served: Served, tenant: Tenant, owner: Owner) -> None:
    filter_ = {"search": "rare"}
    for _ in range(249):
        await write_event(owner, tenant, notify=False)
    async with connected(served, tenant.secret) as live, connected(served, tenant.secret) as behind:
        await follow(live, tenant, None, query=QUERY, filter=filter_)
        await joined(served, 1, 1)
        await follow(behind, tenant, 0, query=QUERY, filter=filter_)
        await joined(served, 1, 2)
        [group] = served.endpoint.groups
        # Three by who was behind, and the group's first.
        await until(lambda: is_so(group.cursor == 249 and len(served.reader.statements) == 4))
        await change(owner, tenant)
        await until(lambda: is_so(group.cursor == 250))
        await change(owner, tenant, name="something rare")
        for socket in (live, behind):
            assert await changes(socket, 1) == [(251, True)]


WRONG: dict[str, Any] = {
    "no id": {"accountTypeId": ["x"]},
    "id of an account": {"accountTypeId": ["acc_00000000000000000000000000000000"]},
    "tags": {"tag": [{"key": str(number)} for number in range(11)]},
    "statuses": {"status": ["ACTIVE"] * 101},
    "NUL": {"search": "a\0b"},
    "status": {"status": ["NONE"]},
    "number": {"search": 5},
    "unknown": {"colour": "red"},
}


async def test_a_wrong_filter_is_refused_as_in_a_list(served: Served, tenant: Tenant) -> None:
    query = "query($filter: AccountFilter) { accountsChanged: accounts(filter: $filter) { totalCount } }"
    async with httpx.AsyncClient() as client, connected(served, tenant.secret) as socket:
        for case, filter_ in WRONG.items():
            body = {"query": query, "variables": {"filter": filter_}}
            answer = await client.post(served.address.http, json=body, headers=tenant.headers)
            await follow(socket, tenant, 0, query=QUERY, filter=filter_)
            message = await receive(socket)
            assert message["type"] == "error", case
            # They stand elsewhere in their documents.
            expected, told = [
                [{**each, "locations": None} for each in errors]
                for errors in (answer.json()["errors"], message["payload"])
            ]
            assert told == expected, case
