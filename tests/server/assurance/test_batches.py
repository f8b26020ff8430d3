"""Batches of accounts: each item served or refused by itself, in order, and done once however often it is sent."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.graphql.ids import decode, encode
from server.identity.models import Role
from server.identity.service import create_token
from tests.server.assurance.conftest import Ask
from tests.server.assurance.test_mutations import CREATE, CREATE_TYPE
from tests.server.fixtures import NewTenant, Owner, Tenant

RESULTS = """{
    results {
        key account { id name alias status accountType { id } setup { kind status } }
        userErrors { code message field }
    }
    userErrors { code message field }
}"""
CREATE_MANY = f"mutation($input: CreateAccountsInput!) {{ createAccounts(input: $input) {RESULTS} }}"
MOVE_MANY = f"mutation($input: MoveAccountsInput!) {{ moveAccounts(input: $input) {RESULTS} }}"
LONGEST_TURN = 0.05
TABLES = ("account", "setup", "event", "idempotency_key")


async def contents(owner: Owner, tenant: Tenant) -> list[str]:
    query = "SELECT t::text FROM {} t WHERE tenancy_id = $1 ORDER BY 1"
    return [row[0] for table in TABLES for row in await owner.fetch(query.format(table), tenant.tenancy_id)]


async def create(ask: Ask, items: list[dict[str, Any]]) -> dict[str, Any]:
    payload: dict[str, Any] = (await ask(CREATE_MANY, input={"items": items}))["createAccounts"]
    return payload


async def move(ask: Ask, items: list[dict[str, Any]]) -> dict[str, Any]:
    payload: dict[str, Any] = (await ask(MOVE_MANY, input={"items": items}))["moveAccounts"]
    return payload


def errors(payload: dict[str, Any]) -> list[list[tuple[str, list[str]]]]:
    """The code and the field of each error of each item, of which none is an account too."""
    assert payload["userErrors"] == []
    for result in payload["results"]:
        assert (result["account"] is None) == bool(result["userErrors"])
    return [[(each["code"], each["field"]) for each in result["userErrors"]] for result in payload["results"]]


async def new_type(ask: Ask, name: str) -> str:
    return str((await ask(CREATE_TYPE, input={"name": name}))["createAccountType"]["accountType"]["id"])


@pytest.fixture
async def kind(ask: Ask) -> str:
    return await new_type(ask, "Batched")


def item(number: int, kind: str, **values: object) -> dict[str, Any]:
    return {"key": f"key-{number}", "name": f"Batched {number}", "accountTypeId": kind, **values}


async def test_each_item_is_served_or_refused_by_itself_and_in_order(
    ask: Ask, owner: Owner, tenant: Tenant, kind: str
) -> None:
    items = [
        item(0, kind, tags=[{"key": "team", "value": "a"}]),
        item(1, kind, name="BATCHED 0"),
        item(2, kind, alias="two", email="two@example.com"),
        item(3, encode("typ", UUID(int=1))),
        item(4, "nonsense"),
        item(5, kind, name="", alias="-", tags=[{"key": "", "value": ""}]),
        item(6, kind, key="a key"),
        item(7, kind, alias="two"),
        item(8, kind),
    ]
    payload = await create(ask, items)
    assert errors(payload) == [
        [],
        [("NAME_IN_USE", ["1", "name"])],
        [],
        [("NOT_FOUND", ["3", "accountTypeId"])],
        [("VALIDATION", ["4", "accountTypeId"])],
        [("VALIDATION", ["5", "name"]), ("VALIDATION", ["5", "alias"]), ("VALIDATION", ["5", "tags", "0", "key"])],
        [("VALIDATION", ["6", "key"])],
        [("ALIAS_IN_USE", ["7", "alias"])],
        [],
    ]
    assert [result["key"] for result in payload["results"]] == [each["key"] for each in items]
    served = [payload["results"][index]["account"] for index in (0, 2, 8)]
    assert [account["name"] for account in served] == ["Batched 0", "Batched 2", "Batched 8"]
    assert {account["setup"]["kind"] for account in served} == {"CREATE"}
    named = "SELECT id FROM account WHERE tenancy_id = $1 AND name ILIKE 'Batched%'"
    there = await owner.fetch(named, tenant.tenancy_id)
    assert {encode("acc", row["id"]) for row in there} == {account["id"] for account in served}


async def test_a_batch_that_is_sent_again_gets_the_same_accounts(
    ask: Ask, owner: Owner, tenant: Tenant, kind: str
) -> None:
    items = [item(number, kind) for number in range(4)]
    first = await create(ask, [*items[:2], item(2, kind, name="Batched 0")])
    assert errors(first) == [[], [], [("NAME_IN_USE", ["2", "name"])]]
    before = await contents(owner, tenant)
    again = await create(ask, items[:2])
    assert again["results"] == first["results"][:2]
    assert await contents(owner, tenant) == before
    # A refused item has left no key; one that was served is not served as another.
    mixed = await create(ask, [item(0, kind, name="Another"), *items[1:]])
    assert errors(mixed) == [[("IDEMPOTENCY_CONFLICT", ["0", "key"])], [], [], []]
    assert mixed["results"][1] == first["results"][1]


async def test_the_keys_of_a_batch_are_its_own(ask: Ask, owner: Owner, kind: str) -> None:
    """Neither those of single requests nor those of other mutations."""
    single = {"name": "Single", "accountTypeId": kind, "idempotencyKey": "key-0"}
    alone = (await ask(CREATE, input=single))["createAccount"]["account"]["id"]
    [created] = (await create(ask, [item(0, kind)]))["results"]
    assert created["account"]["id"] != alone
    other = await new_type(ask, "Other")
    await owner.execute("UPDATE setup SET status = 'COMPLETED' WHERE account_id = $1", decode(alone, "acc"))
    [moved] = (await move(ask, [{"key": "key-0", "accountId": alone, "accountTypeId": other}]))["results"]
    assert (moved["account"]["id"], moved["account"]["accountType"]) == (alone, {"id": other})
    assert (await ask(CREATE, input=single))["createAccount"]["account"]["id"] == alone


async def test_what_is_wrong_with_the_whole_batch_changes_nothing(
    ask: Ask, owner: Owner, tenant: Tenant, kind: str
) -> None:
    before = await contents(owner, tenant)
    long = await create(ask, [item(number, kind) for number in range(101)])
    twice = await create(ask, [item(0, kind), item(1, kind), item(2, kind, key="key-0"), item(3, kind, key="key-1")])
    moved = await move(
        ask, [{"key": "k", "accountId": encode("acc", tenant.account_id), "accountTypeId": kind} for _ in range(2)]
    )
    found = [[(error["code"], error["field"]) for error in each["userErrors"]] for each in (long, twice, moved)]
    assert found == [
        [("VALIDATION", ["items"])],
        [("VALIDATION", ["items", "2", "key"]), ("VALIDATION", ["items", "3", "key"])],
        [("VALIDATION", ["items", "1", "key"])],
    ]
    assert "101 items" in long["userErrors"][0]["message"]
    assert [each["results"] for each in (long, twice, moved)] == [[], [], []]
    assert await contents(owner, tenant) == before
    assert await create(ask, []) == {"results": [], "userErrors": []}


async def test_accounts_are_moved_and_each_refusal_is_told_apart(
    ask: Ask, owner: Owner, tenant: Tenant, kind: str
) -> None:
    other = await new_type(ask, "Moved to")
    created = (await create(ask, [item(number, kind) for number in range(5)]))["results"]
    accounts = [result["account"]["id"] for result in created]
    ready = [decode(account, "acc") for account in accounts]
    # AWS has the first three; the setup of the fourth is still live, that of the fifth was given up.
    await owner.execute(
        "UPDATE setup SET status = 'COMPLETED' WHERE account_id = any($1)", [ready[0], ready[1], ready[2]]
    )
    for number, account in enumerate(ready[:3]):
        await owner.execute("UPDATE account SET aws_account_id = $1 WHERE id = $2", f"{number:012}", account)
    await owner.execute("UPDATE account SET status = 'CANCELLED' WHERE id = $1", ready[4])
    foundation = await owner.fetchval(
        "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'Foundation', true) RETURNING id",
        tenant.tenancy_id,
    )
    await owner.execute("UPDATE account SET role = 'SECURITY' WHERE id = $1", ready[2])
    items = [
        {"key": "0", "accountId": accounts[0], "accountTypeId": other},
        {"key": "1", "accountId": accounts[1], "accountTypeId": kind},
        {"key": "2", "accountId": accounts[2], "accountTypeId": other},
        {"key": "3", "accountId": accounts[3], "accountTypeId": other},
        {"key": "4", "accountId": accounts[4], "accountTypeId": other},
        {"key": "5", "accountId": encode("acc", UUID(int=1)), "accountTypeId": other},
        {"key": "6", "accountId": accounts[1], "accountTypeId": encode("typ", foundation)},
        {"key": "7", "accountId": "nonsense", "accountTypeId": other},
    ]
    events = await owner.fetchval("SELECT last_seq FROM account WHERE id = $1", ready[1])
    for _ in range(2):
        payload = await move(ask, items)
        assert errors(payload) == [
            [],
            [],
            [("PROTECTED", ["2", "accountTypeId"])],
            [("SETUP_IN_PROGRESS", ["3"])],
            [("PROTECTED", ["4", "accountId"])],
            [("NOT_FOUND", ["5", "accountId"])],
            [("PROTECTED", ["6", "accountTypeId"])],
            [("VALIDATION", ["7", "accountId"])],
        ]
        moved, stayed = [result["account"] for result in payload["results"][:2]]
        assert (moved["accountType"]["id"], moved["setup"]) == (other, {"kind": "REASSURE", "status": "PENDING"})
        # To the type that it is of is no move.
        assert (stayed["accountType"]["id"], stayed["setup"]["kind"]) == (kind, "CREATE")
    assert await owner.fetchval("SELECT last_seq FROM account WHERE id = $1", ready[1]) == events
    begun = await owner.fetch("SELECT kind FROM setup WHERE account_id = $1 ORDER BY requested_at", ready[0])
    assert [row["kind"] for row in begun] == ["CREATE", "REASSURE"]


async def test_batches_that_meet_make_each_account_once(ask: Ask, owner: Owner, tenant: Tenant, kind: str) -> None:
    items = [item(number, kind) for number in range(10)]
    payloads = await asyncio.gather(*(create(ask, items) for _ in range(4)))
    assert [errors(payload) for payload in payloads] == [[[]] * 10] * 4
    ids = [[result["account"]["id"] for result in payload["results"]] for payload in payloads]
    assert ids == [ids[0]] * 4
    count = "SELECT count(*) FROM account WHERE tenancy_id = $1 AND name LIKE 'Batched%'"
    assert await owner.fetchval(count, tenant.tenancy_id) == 10


async def test_each_selection_of_the_results_has_its_own_fields(ask: Ask, kind: str) -> None:
    document = """mutation($input: CreateAccountsInput!) { createAccounts(input: $input) {
        a: results { account { id } also: account { named: name ...More } }
        b: results { account { name status } }
        ...Keys
    } }
    fragment More on Account { accountType { name } }
    fragment Keys on CreateAccountsPayload { c: results { key __typename } }"""
    payload = (await ask(document, input={"items": [item(0, kind), item(1, kind, name="Batched 0")]}))["createAccounts"]
    first, refused = payload["a"]
    assert refused == {"account": None, "also": None}
    assert first["also"] == {"named": "Batched 0", "accountType": {"name": "Batched"}}
    assert first["account"]["id"].startswith("acc_")
    assert payload["b"] == [{"account": {"name": "Batched 0", "status": "INITIALIZING"}}, {"account": None}]
    assert payload["c"] == [{"key": f"key-{number}", "__typename": "AccountResult"} for number in range(2)]


async def test_what_keeps_the_answer_from_being_read_is_told_before_anything_is_done(
    server: httpx.AsyncClient, tenant: Tenant, owner: Owner, kind: str
) -> None:
    before = await contents(owner, tenant)
    below = "setups(first: 101) { nodes { id } }"
    body = {
        "query": f"""mutation($input: CreateAccountsInput!) {{
            createAccounts(input: $input) {{ results {{ account {{ {below} }} }} }} }}""",
        "variables": {"input": {"items": [item(0, kind)]}},
    }
    answer = (await server.post("/graphql", json=body, headers=tenant.headers)).json()
    [error] = answer["errors"]
    assert (error["extensions"]["code"], answer["data"]) == ("VALIDATION", None)
    assert "101" in error["message"]
    assert await contents(owner, tenant) == before


async def longest_turn(work: Awaitable[object]) -> float:
    """For how many seconds of CPU time, at most, the loop's thread was at work between two looks, 5 ms apart."""
    longest, over = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        before = time.thread_time()
        while not over.is_set():
            await asyncio.sleep(0.005)
            now = time.thread_time()
            longest, before = max(longest, now - before), now

    watching = asyncio.create_task(watch())
    await work
    over.set()
    await watching
    return longest


async def test_a_hundred_accounts_leave_the_event_loop_to_others(
    server: httpx.AsyncClient, tenant: Tenant, kind: str
) -> None:
    """However many items there are, nobody else waits for more than one of them.

    In CPU time: what other processes of this machine do is no part of it. The least of three, as Python may be
    collecting the garbage of other tests.
    """

    async def hundred(first: int) -> None:
        items = [item(number, kind) for number in range(first, first + 100)]
        body = {"query": CREATE_MANY, "variables": {"input": {"items": items}}}
        answer = await server.post("/graphql", json=body, headers=tenant.headers, timeout=120)
        assert errors(answer.json()["data"]["createAccounts"]) == [[]] * 100

    turns = [await longest_turn(hundred(first)) for first in (0, 100, 200)]
    assert min(turns) < LONGEST_TURN


async def test_it_takes_an_operator_and_reaches_no_other_tenancy(
    server: httpx.AsyncClient, tenant: Tenant, new_tenant: NewTenant, worker_engine: AsyncEngine, kind: str
) -> None:
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "user", Role.USER)
    theirs = (await new_tenant()).headers
    batches = {
        "createAccounts": (CREATE_MANY, [item(0, kind)], ["0", "accountTypeId"]),
        "moveAccounts": (
            MOVE_MANY,
            [{"key": "k", "accountId": encode("acc", tenant.account_id), "accountTypeId": kind}],
            ["0", "accountId"],
        ),
    }
    for name, (document, items, field) in batches.items():
        body = {"query": document, "variables": {"input": {"items": items}}}
        mine = {"authorization": f"Bearer {secret}"}
        payload = (await server.post("/graphql", json=body, headers=mine)).json()["data"][name]
        assert [error["code"] for error in payload["userErrors"]] == ["FORBIDDEN"]
        assert payload["results"] == []
        payload = (await server.post("/graphql", json=body, headers=theirs)).json()["data"][name]
        assert errors(payload) == [[("NOT_FOUND", field)]]
