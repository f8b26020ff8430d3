"""Every change of an account is an event, with or without a setup, and has its place among those of the tenancy."""

import asyncio
from contextlib import aclosing
from typing import Any

import httpx
from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.tags import TagValue
from server.assurance.foundation import bootstrap_tenancy
from server.assurance.requests import update_account
from server.assurance.service import fail_stage, lock_latest_setup
from server.database import transaction
from server.graphql.ids import decode
from server.leases import StageError, StageErrorClass
from server.tenancies.models import Tenancy
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import Owner, Tenant, following

UPDATE = """mutation($input: UpdateAccountInput!) {
  updateAccount(input: $input) { account { lastSequence updatedAt } userErrors { code } }
}"""
CREATE = """mutation($name: String!, $type: ID!) {
  createAccount(input: {name: $name, accountTypeId: $type, tags: [{key: "team", value: "a"}]}) {
    account { id } userErrors { code }
  }
}"""
CREATE_TYPE = 'mutation { createAccountType(input: {name: "Development"}) { accountType { id } } }'
POSITIONS = "SELECT account_id, sequence, position FROM event WHERE tenancy_id = $1 ORDER BY position"


async def created(ask: Ask, name: str = "Payments") -> str:
    type_id = (await ask(CREATE_TYPE))["createAccountType"]["accountType"]["id"]
    return str((await ask(CREATE, name=name, type=type_id))["createAccount"]["account"]["id"])


async def update(ask: Ask, account: str, **changes: object) -> dict[str, Any]:
    payload: dict[str, Any] = (await ask(UPDATE, input={"accountId": account, **changes}))["updateAccount"]
    assert payload["userErrors"] == []
    account_now: dict[str, Any] = payload["account"]
    return account_now


async def test_a_change_of_tags_alone_is_an_event_with_the_setup_as_it_was(ask: Ask, owner: Owner) -> None:
    account = await created(ask)
    assert (await update(ask, account, tags=[{"key": "team", "value": "b"}]))["lastSequence"] == 2
    [event] = await owner.fetch(
        "SELECT setup ->> 'status' AS status, stage, account ->> 'last_seq' AS number FROM event"
        " WHERE account_id = $1 AND sequence = 2",
        decode(account, "acc"),
    )
    assert tuple(event) == ("PENDING", None, "2")


async def test_what_changes_nothing_is_no_event(ask: Ask) -> None:
    account = await created(ask)
    before = await update(ask, account, name="Payments", tags=[{"key": "team", "value": "a"}])
    assert before["lastSequence"] == 1
    assert await update(ask, account, tags=[{"key": "team", "value": "a"}]) == before


async def test_a_correction_that_begins_no_setup_is_an_event(
    ask: Ask, tenant: Tenant, owner: Owner, worker_engine: AsyncEngine
) -> None:
    account = await created(ask)
    async with transaction(worker_engine) as session:
        setup = await lock_latest_setup(session, tenant.tenancy_id, decode(account, "acc"))
        assert setup is not None
        await fail_stage(session, setup, 1, StageError("E", "Correct it.", StageErrorClass.NEEDS_PERSON))
    assert (await update(ask, account, email="other@example.com"))["lastSequence"] == 3
    event = await owner.fetchrow(
        "SELECT account ->> 'email', setup ->> 'status' FROM event WHERE account_id = $1 AND sequence = 3",
        decode(account, "acc"),
    )
    assert event is not None
    assert tuple(event) == ("other@example.com", "FAILED")


async def test_an_account_without_a_setup_is_followed_too(
    ask: Ask, server: httpx.AsyncClient, tenant: Tenant, worker_engine: AsyncEngine, owner: Owner
) -> None:
    async with transaction(worker_engine) as session:
        await bootstrap_tenancy(session, await session.get_one(Tenancy, tenant.tenancy_id))
    query = "{ accounts(filter: {role: [SECURITY]}) { nodes { id lastSequence } } }"
    [security] = (await ask(query))["accounts"]["nodes"]
    assert security["lastSequence"] == 1
    select = "sequence account { name } setup { status } stage { name }"
    async with following(server, tenant, account=security["id"], select=select) as events:
        assert await anext(events) == {"sequence": 1, "account": {"name": "Security"}, "setup": None, "stage": None}
        await update(ask, security["id"], tags=[{"key": "team", "value": "b"}])
        assert (await anext(events))["sequence"] == 2


async def test_positions_are_in_the_order_of_commits_whoever_began_first(
    ask: Ask, tenant: Tenant, engine: AsyncEngine, owner: Owner
) -> None:
    first, other = await created(ask), decode(await created_beside(ask, "Other"), "acc")
    async with transaction(engine, tenant.tenancy_id) as session:
        # This transaction begins, writes its event and has its number before the other one; it commits after it.
        await update_account(session, tenant.tenancy_id, decode(first, "acc"), tags=[TagValue("k", "1")])
        async with transaction(engine, tenant.tenancy_id) as beside:
            await update_account(beside, tenant.tenancy_id, other, tags=[TagValue("k", "1")])
    rows = await owner.fetch(POSITIONS, tenant.tenancy_id)
    assert [tuple(row) for row in rows] == [
        (decode(first, "acc"), 1, 1),
        (other, 1, 2),
        (other, 2, 3),
        (decode(first, "acc"), 2, 4),
    ]


async def created_beside(ask: Ask, name: str) -> str:
    type_id = (await ask("{ accountTypes(first: 1) { nodes { id } } }"))["accountTypes"]["nodes"][0]["id"]
    return str((await ask(CREATE, name=name, type=type_id))["createAccount"]["account"]["id"])


async def test_a_list_hears_of_accounts_from_their_creation_to_their_end(
    ask: Ask, server: httpx.AsyncClient, tenant: Tenant
) -> None:
    account = await created(ask)
    await update(ask, account, tags=[{"key": "team", "value": "b"}])
    setup = (await ask("query($id: ID!) { account(by: {id: $id}) { setup { id } } }", id=account))["account"]["setup"]
    cancel = "mutation($id: ID!) { cancelAccountSetup(input: {setupId: $id}) { userErrors { code } } }"
    assert (await ask(cancel, id=setup["id"])) == {"cancelAccountSetup": {"userErrors": []}}
    other = await created_beside(ask, "Other")
    transport = WebsocketsTransport(
        url=str(server.base_url.copy_with(scheme="ws", path="/graphql")),
        init_payload={"Authorization": f"Bearer {tenant.secret}"},
    )
    query = "subscription { accountsChanged(after: 0) { sequence account { id status tags { value } } } }"
    async with Client(transport=transport) as session, aclosing(session.subscribe(GraphQLRequest(query))) as stream:
        changes = [(await anext(stream))["accountsChanged"] for _ in range(4)]
    assert [(each["account"]["id"], each["sequence"], each["account"]["status"]) for each in changes] == [
        (account, 1, "INITIALIZING"),
        (account, 2, "INITIALIZING"),
        (account, 3, "CANCELLED"),
        (other, 1, "INITIALIZING"),
    ]
    assert changes[1]["account"]["tags"] == [{"value": "b"}]


class Undone(Exception):
    pass


async def test_writers_side_by_side_leave_no_gap_whatever_is_rolled_back(
    ask: Ask, tenant: Tenant, engine: AsyncEngine, owner: Owner
) -> None:
    accounts = [decode(await created(ask), "acc")]
    accounts += [decode(await created_beside(ask, f"Other {number}"), "acc") for number in range(3)]

    async def write(writer: int) -> None:
        for turn in range(10):
            try:
                async with transaction(engine, tenant.tenancy_id) as session:
                    account = accounts[(writer + turn) % len(accounts)]
                    await update_account(session, tenant.tenancy_id, account, tags=[TagValue("k", f"{writer}-{turn}")])
                    if turn % 4 == 3:
                        raise Undone
            except Undone:
                pass

    await asyncio.wait_for(asyncio.gather(*map(write, range(6))), 30)
    rows = await owner.fetch(POSITIONS, tenant.tenancy_id)
    assert [row["position"] for row in rows] == list(range(1, 4 + 6 * 8 + 1))
    for account in accounts:
        numbers = [row["sequence"] for row in rows if row["account_id"] == account]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_the_server_cannot_rewrite_what_has_happened(ask: Ask, tenant: Tenant, engine: AsyncEngine) -> None:
    await created(ask)
    async with engine.connect() as connection, connection.begin():
        await connection.exec_driver_sql(f"SET LOCAL app.tenancy_id = '{tenant.tenancy_id}'")
        assert (await connection.exec_driver_sql("UPDATE event SET position = 9")).rowcount == 0
