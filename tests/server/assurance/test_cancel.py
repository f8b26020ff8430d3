"""Cancelling a setup before AWS is asked to create its account: what is given up, refused, and free again."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

from server.assurance.models import CreateIntent, Setup
from server.assurance.service import complete_stage, record_event, start_stage, wait_stage
from server.database import transaction
from server.graphql.ids import decode, encode
from server.identity.models import Role
from server.identity.service import create_token
from server.leases import StageError, StageErrorClass
from tests.server.assurance.conftest import Ask
from tests.server.assurance.test_mutations import CREATE, RETRY, UPDATE, account_type, activate, contents, fail
from tests.server.fixtures import NewTenant, Owner, Tenant, following
from workers.lease import claim
from workers.setups import SETUP

__all__ = ["account_type"]

ACCOUNT = """
    id name alias email status
    setup { id status finishedAt progress stages { name status startedAt finishedAt nextAttemptAt error { code } } }
"""
MAKE = f"""mutation($input: CreateAccountInput!) {{
    createAccount(input: $input) {{ account {{ {ACCOUNT} }} userErrors {{ code message field }} }} }}"""
CANCEL = f"""mutation($input: CancelAccountSetupInput!) {{
    cancelAccountSetup(input: $input) {{ account {{ {ACCOUNT} }} userErrors {{ code message field }} }} }}"""


async def made(ask: Ask, account_type: str, name: str, **values: object) -> dict[str, Any]:
    payload = (await ask(MAKE, input={"accountTypeId": account_type, "name": name, **values}))["createAccount"]
    assert payload["userErrors"] == []
    account: dict[str, Any] = payload["account"]
    return account


async def cancel(ask: Ask, account: dict[str, Any]) -> dict[str, Any]:
    payload: dict[str, Any] = (await ask(CANCEL, input={"setupId": account["setup"]["id"]}))["cancelAccountSetup"]
    return payload


def codes(payload: dict[str, Any]) -> list[tuple[str, list[str] | None]]:
    return [(error["code"], error["field"]) for error in payload["userErrors"]]


async def declare(owner: Owner, account: dict[str, Any], state: str = "INTENT", *, unknown: bool = False) -> None:
    """The intent as a worker leaves it; `unknown` is the outcome of a call."""
    await owner.execute(
        "INSERT INTO create_intent (account_id, tenancy_id, email, account_name, state, outcome_unknown, called_at)"
        " SELECT id, tenancy_id, email, name, $2, $3, now() FROM account WHERE id = $1",
        decode(account["id"], "acc"),
        state,
        unknown,
    )


def setup_key(account: dict[str, Any]) -> UUID:
    return decode(account["setup"]["id"], "set")


async def test_a_setup_that_nobody_began_is_cancelled_with_its_stages_and_account(ask: Ask, account_type: str) -> None:
    account = await made(ask, account_type, "Typo")
    payload = await cancel(ask, account)
    assert payload["userErrors"] == []
    cancelled = payload["account"]
    assert (cancelled["id"], cancelled["status"]) == (account["id"], "CANCELLED")
    assert (cancelled["setup"]["status"], cancelled["setup"]["progress"]) == ("CANCELLED", 0)
    assert cancelled["setup"]["finishedAt"] is not None
    stages = cancelled["setup"]["stages"]
    assert {(stage["status"], stage["finishedAt"]) for stage in stages} == {("CANCELLED", None)}


async def test_a_stage_that_waits_keeps_its_error_and_one_that_completed_stays_so(
    ask: Ask, account_type: str, worker_engine: AsyncEngine
) -> None:
    account = await made(ask, account_type, "Waits")
    lease = await claim(worker_engine, SETUP, setup_key(account))
    assert lease is not None
    async with lease.write() as (session, setup):
        await start_stage(session, setup, 2)
        await complete_stage(session, setup, 2)
        await start_stage(session, setup, 1)
    async with lease.write() as (session, setup):
        busy = StageError("CREATE_ACCOUNT_QUEUED", "Wait.", StageErrorClass.TRANSIENT)
        await wait_stage(session, setup, 1, busy, timedelta(minutes=1))
    stages = (await cancel(ask, account))["account"]["setup"]["stages"]
    assert (stages[0]["status"], stages[0]["error"], stages[0]["nextAttemptAt"]) == (
        "CANCELLED",
        {"code": "CREATE_ACCOUNT_QUEUED"},
        None,
    )
    assert stages[0]["startedAt"] < stages[0]["finishedAt"]
    assert [stage["status"] for stage in stages[1:3]] == ["COMPLETED", "CANCELLED"]


async def test_who_follows_sees_it_in_one_event_and_stays(
    ask: Ask, account_type: str, server: httpx.AsyncClient, tenant: Tenant, worker_engine: AsyncEngine
) -> None:
    account = await made(ask, account_type, "Followed")
    select = "sequence account { status } setup { status stages { status } } stage { position status }"
    async with following(server, tenant, account=account["id"], select=select) as events:
        assert (await anext(events))["setup"]["status"] == "PENDING"
        await cancel(ask, account)
        event = await anext(events)
        assert (event["sequence"], event["account"]["status"], event["setup"]["status"]) == (
            2,
            "CANCELLED",
            "CANCELLED",
        )
        assert event["stage"] == {"position": 1, "status": "CANCELLED"}
        assert {stage["status"] for stage in event["setup"]["stages"]} == {"CANCELLED"}
        # The subscription is still there, as after every other end.
        async with transaction(worker_engine) as session:
            await record_event(session, await session.get_one(Setup, setup_key(account)))
        assert (await anext(events))["sequence"] == 3


async def test_name_alias_and_email_are_free_for_another_account(ask: Ask, account_type: str, owner: Owner) -> None:
    wanted: dict[str, Any] = {"alias": "payments-x", "email": "payments@example.com"}
    for _ in range(2):
        given_up = await made(ask, account_type, "Payments", **wanted)
        await declare(owner, given_up)
        assert (await cancel(ask, given_up))["userErrors"] == []
    account = await made(ask, account_type, "PAYMENTS", **wanted)
    await declare(owner, account)
    again = (await ask(CREATE, input={"accountTypeId": account_type, "name": "Payments", **wanted}))["createAccount"]
    assert [code for code, _ in codes(again)] == ["NAME_IN_USE", "ALIAS_IN_USE", "EMAIL_IN_USE"]
    found = await ask('{ byName: account(by: {name: "payments"}) { id } accounts { totalCount nodes { status } } }')
    assert found["byName"] == {"id": account["id"]}
    statuses = [node["status"] for node in found["accounts"]["nodes"]]
    assert (statuses.count("CANCELLED"), found["accounts"]["totalCount"]) == (2, len(statuses))


async def test_a_cancelled_account_is_not_found_by_the_name_that_it_gave_up(ask: Ask, account_type: str) -> None:
    account = await made(ask, account_type, "Nameless")
    await cancel(ask, account)
    query = 'query($id: ID!) { byName: account(by: {name: "Nameless"}) { id } byId: account(by: {id: $id}) { name } }'
    assert await ask(query, id=account["id"]) == {"byName": None, "byId": {"name": "Nameless"}}


async def test_it_is_final(ask: Ask, account_type: str, owner: Owner, tenant: Tenant) -> None:
    account = await made(ask, account_type, "Final")
    await cancel(ask, account)
    before = await contents(owner, tenant)
    assert codes(await cancel(ask, account)) == [("SETUP_OVER", ["setupId"])]
    for stage in (None, "create_account"):
        retried = (await ask(RETRY, input={"accountId": account["id"], "stage": stage}))["retryAccountSetup"]
        assert codes(retried) == [("NOTHING_TO_RETRY", None)]
        assert "was cancelled" in retried["userErrors"][0]["message"]
    for change in ({"name": "Other"}, {"tags": [{"key": "a", "value": "b"}]}):
        changed = (await ask(UPDATE, input={"accountId": account["id"], **change}))["updateAccount"]
        assert codes(changed) == [("PROTECTED", ["accountId"])]
    assert await contents(owner, tenant) == before


async def test_a_repeated_create_under_its_key_returns_the_cancelled_account(ask: Ask, account_type: str) -> None:
    account = await made(ask, account_type, "Keyed", idempotencyKey="keyed")
    await cancel(ask, account)
    again = await made(ask, account_type, "Keyed", idempotencyKey="keyed")
    assert (again["id"], again["status"]) == (account["id"], "CANCELLED")


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize(
    ("state", "unknown"),
    [("CALLING", False), ("REQUESTED", False), ("DONE", False), ("INTENT", True), ("FAILED", True)],
)
async def test_once_aws_may_have_made_it_the_account_keeps_its_email_and_is_not_given_up(
    ask: Ask,
    account_type: str,
    owner: Owner,
    tenant: Tenant,
    worker_engine: AsyncEngine,
    state: str,
    unknown: bool,
    failed: bool,
) -> None:
    account = await made(ask, account_type, "Begun")
    await declare(owner, account, state, unknown=unknown)
    if failed:
        await fail(worker_engine, owner, account["id"])
    before = await contents(owner, tenant)
    changed = (await ask(UPDATE, input={"accountId": account["id"], "email": "other@example.com"}))["updateAccount"]
    assert codes(changed) == [("PROTECTED", ["email"])]
    payload = await cancel(ask, account)
    assert payload["account"] is None
    assert codes(payload) == [("CREATION_BEGUN", ["setupId"])]
    assert "'Begun'" in payload["userErrors"][0]["message"]
    assert await contents(owner, tenant) == before


@pytest.mark.parametrize("state", ["INTENT", "FAILED"])
async def test_what_aws_has_refused_every_time_may_get_another_email_or_is_given_up(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine, state: str
) -> None:
    account = await made(ask, account_type, "Refused")
    await declare(owner, account, state)
    await fail(worker_engine, owner, account["id"])
    changed = (await ask(UPDATE, input={"accountId": account["id"], "email": f"{state}@example.com"}))["updateAccount"]
    assert changed["userErrors"] == []
    assert (await cancel(ask, account))["account"]["status"] == "CANCELLED"
    assert await owner.fetchval("SELECT count(*) FROM create_intent WHERE account_name = 'Refused'") == 0


async def test_the_setup_of_an_account_that_aws_has_is_not_cancelled(ask: Ask, account_type: str, owner: Owner) -> None:
    account = await made(ask, account_type, "Has it")
    await activate(owner, account["id"])
    await ask(UPDATE, input={"accountId": account["id"], "name": "Renamed"})
    query = "query($id: ID!) { account(by: {id: $id}) { id setup { id status kind } } }"
    reassured = (await ask(query, id=account["id"]))["account"]
    assert (reassured["setup"]["kind"], reassured["setup"]["status"]) == ("REASSURE", "PENDING")
    assert codes(await cancel(ask, reassured)) == [("CREATION_BEGUN", ["setupId"])]
    # The one before it, which is over.
    assert codes(await cancel(ask, account)) == [("SETUP_OVER", ["setupId"])]


@pytest.mark.parametrize("called", [False, True])
async def test_a_setup_that_has_failed_before_there_was_an_account_is_cancelled(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine, called: bool
) -> None:
    account = await made(ask, account_type, "Failed", alias="failed-x", email="failed@example.com")
    await fail(worker_engine, owner, account["id"])
    if called:
        await declare(owner, account, "FAILED")
    failed = (await ask(f"query($id: ID!) {{ account(by: {{id: $id}}) {{ {ACCOUNT} }} }}", id=account["id"]))["account"]
    cancelled = (await cancel(ask, account))["account"]
    assert (cancelled["status"], cancelled["setup"]["status"]) == ("CANCELLED", "CANCELLED")
    stage, before = cancelled["setup"]["stages"][0], failed["setup"]["stages"][0]
    assert stage == {**before, "status": "CANCELLED"}
    assert before["error"] == {"code": "EMAIL_ALREADY_EXISTS"}
    retried = (await ask(RETRY, input={"accountId": account["id"]}))["retryAccountSetup"]
    assert codes(retried) == [("NOTHING_TO_RETRY", None)]
    await made(ask, account_type, "Failed", alias="failed-x", email="failed@example.com")


async def test_a_setup_that_has_failed_and_is_retried_meanwhile_is_cancelled_all_the_same(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine
) -> None:
    account = await made(ask, account_type, "Failed once")
    await fail(worker_engine, owner, account["id"])
    await ask(RETRY, input={"accountId": account["id"]})
    assert (await cancel(ask, account))["account"]["status"] == "CANCELLED"


async def test_the_foundation_of_a_tenancy_is_not_given_up(ask: Ask, account_type: str, owner: Owner) -> None:
    account = await made(ask, account_type, "Foundation")
    await owner.execute("UPDATE account SET role = 'SECURITY' WHERE id = $1", decode(account["id"], "acc"))
    assert codes(await cancel(ask, account)) == [("PROTECTED", ["setupId"])]


async def test_what_is_not_there_or_not_a_setup_is_refused(
    ask: Ask, account_type: str, server: httpx.AsyncClient, new_tenant: NewTenant
) -> None:
    account = await made(ask, account_type, "Mine")
    for id_, code in (
        ("nonsense", "VALIDATION"),
        (account["id"], "VALIDATION"),
        (encode("set", uuid4()), "NOT_FOUND"),
    ):
        payload = (await ask(CANCEL, input={"setupId": id_}))["cancelAccountSetup"]
        assert codes(payload) == [(code, ["setupId"])]
    other = await new_tenant()
    body = {"query": CANCEL, "variables": {"input": {"setupId": account["setup"]["id"]}}}
    answer = (await server.post("/graphql", json=body, headers=other.headers)).json()
    assert codes(answer["data"]["cancelAccountSetup"]) == [("NOT_FOUND", ["setupId"])]


async def test_a_reader_may_not_cancel(
    ask: Ask, account_type: str, server: httpx.AsyncClient, tenant: Tenant, worker_engine: AsyncEngine
) -> None:
    account = await made(ask, account_type, "Kept")
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "reader", Role.READONLY)
    body = {"query": CANCEL, "variables": {"input": {"setupId": account["setup"]["id"]}}}
    answer = (await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})).json()
    assert codes(answer["data"]["cancelAccountSetup"]) == [("FORBIDDEN", None)]


async def test_of_many_requests_one_cancels(ask: Ask, account_type: str) -> None:
    account = await made(ask, account_type, "Cancelled once")
    answers = await asyncio.gather(*(cancel(ask, account) for _ in range(8)))
    assert sorted(map(str, map(codes, answers))) == sorted(["[]", *["[('SETUP_OVER', ['setupId'])]"] * 7])


async def test_the_app_role_cannot_delete_an_intent_that_may_have_made_an_account(
    ask: Ask, account_type: str, owner: Owner, tenant: Tenant, engine: AsyncEngine
) -> None:
    intents = (("Calling", "CALLING", False), ("Unknown", "FAILED", True), ("Refused", "FAILED", False))
    for name, state, unknown in intents:
        await declare(owner, await made(ask, account_type, name), state, unknown=unknown)
    async with transaction(engine, tenant.tenancy_id) as session:
        gone = await session.scalars(delete(CreateIntent).returning(CreateIntent.account_name))
        assert gone.all() == ["Refused"]
