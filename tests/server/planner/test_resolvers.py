"""What resolvers read with: payloads of mutations, and the events of a subscription."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionResult, Info

from server.account_types.types import AccountType
from server.accounts.types import Account
from server.assurance.types import SetupEvent
from server.context import Context
from server.graphql.connections import Node
from server.graphql.ids import decode, encode
from server.graphql.scalars import SCALARS
from server.planner import install, read_list, read_payload
from tests.server.planner.world import HOSTILE, Side


@strawberry.type
class Fault:
    message: str


@strawberry.type
class Payload:
    account: Account | None
    account_type: AccountType | None
    user_errors: list[Fault]


@strawberry.type
class Query:
    @strawberry.field
    def nothing(self) -> Node | None:
        return None


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def touch(self, info: Info[Context, None], id: strawberry.ID, type_: strawberry.ID | None = None) -> Payload:
        type_id = None if type_ is None else decode(type_, "typ")
        return await read_payload(info, Payload, account=decode(id, "acc"), account_type=type_id)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def events(self, info: Info[Context, None], id: strawberry.ID, after: int = 0) -> AsyncIterator[SetupEvent]:
        where = {"account_id": decode(id, "acc")}
        for sequence, event in await read_list(info, SetupEvent, where, after=("sequence", after), limit=1):
            assert event is not None
            assert sequence == after + 1
            yield event


@pytest.fixture(scope="module")
def schema() -> strawberry.Schema:
    config = StrawberryConfig(scalar_map=SCALARS)
    schema = strawberry.Schema(Query, Mutation, Subscription, config=config)
    install(schema._schema)
    return schema


@dataclass
class Asker:
    schema: strawberry.Schema
    side: Side

    async def __call__(self, query: str, **variables: Any) -> Any:
        result = await self.schema.execute(query, variables, context_value=self.side.context)
        assert result.errors is None, result.errors
        return result.data


@pytest.fixture
def ask(schema: strawberry.Schema, ours: Side) -> Asker:
    return Asker(schema, ours)


async def test_a_payload_under_every_alias_in_one_statement(ask: Asker, ours: Side) -> None:
    query = """mutation($id: ID!, $type: ID) { did: touch(id: $id, type_: $type) {
        __typename account { id } again: account { ...Name } ... on Payload { account { name } } accountType { name }
        userErrors { message } } }
        fragment Name on Account { kind: name tags { key } }"""
    id_ = ours.account_id("Security")
    ours.reader.statements.clear()
    assert await ask(query, id=id_, type=encode("typ", ours.types["general"])) == {
        "did": {
            "__typename": "Payload",
            "account": {"id": id_, "name": "Security"},
            "again": {"kind": "Security", "tags": [{"key": "stage"}, {"key": "team"}]},
            "accountType": {"name": "general"},
            "userErrors": [],
        }
    }
    assert len(ours.reader.statements) == 1
    assert (await ask(query, id=id_))["did"]["accountType"] is None


async def test_a_payload_of_which_nothing_is_selected(ask: Asker, ours: Side) -> None:
    query = "mutation($id: ID!) { touch(id: $id) { userErrors { message } } }"
    data = await ask(query, id=ours.account_id("Security"))
    assert data == {"touch": {"userErrors": []}}


EVENTS = """subscription($id: ID!, $after: Int!) { event: events(id: $id, after: $after) {
    at account { was: name tags { key } accountType { name } setup { id } }
    setup { id kind stages { name } account { name } } stage { name error { message } controls { id } } } }"""


async def events(ask: Asker, **variables: Any) -> list[Any]:
    stream: Any = await ask.schema.subscribe(EVENTS, variables, context_value=ask.side.context)
    found = []
    async for result in stream:
        assert isinstance(result, ExecutionResult)
        assert result.errors is None, result.errors
        assert result.data is not None
        found.append(result.data["event"])
    return found


async def test_events_show_the_rows_as_they_were(ask: Asker, ours: Side, theirs: Side) -> None:
    id_ = ours.account_id("member 00")
    setup = encode("set", ours.setups[1])
    [event] = await events(ask, id=id_, after=0)
    assert event == {
        "at": "2026-01-01T00:00:00+00:00",
        "account": {
            "was": "as it was",
            "tags": [{"key": "stage"}, {"key": "team"}],
            "accountType": {"name": "Sandbox"},
            "setup": {"id": setup},
        },
        "setup": {
            "id": setup,
            "kind": "REASSURE",
            "stages": [{"name": "first"}, {"name": "second"}],
            "account": {"name": "member 00"},
        },
        "stage": None,
    }
    [event] = await events(ask, id=id_, after=1)
    assert event["stage"] == {"name": "second", "error": {"message": HOSTILE[1]}, "controls": []}
    assert await events(ask, id=id_, after=2) == []
    assert await events(ask, id=theirs.account_id("member 00"), after=0) == []


async def test_a_row_kept_before_its_table_had_a_column(ours: Side, ask: Asker) -> None:
    """Null, and an error where null cannot be; never an event that goes missing."""
    query = "subscription($id: ID!) { events(id: $id, after: 2) { sequence account { alias email } setup { id } } }"
    account = ours.accounts["member 00"]
    owner = ours.owner
    await owner.execute(
        "INSERT INTO event (account_id, sequence, tenancy_id, account, setup, stage) SELECT account_id, 3, tenancy_id,"
        " account - 'email' - 'alias', setup, 'null' FROM event WHERE account_id = $1 AND sequence = 2",
        account,
    )
    try:
        stream: Any = await ask.schema.subscribe(
            query, {"id": ours.account_id("member 00")}, context_value=ours.context
        )
        [result] = [result async for result in stream]
    finally:
        await owner.execute("DELETE FROM event WHERE account_id = $1 AND sequence = 3", account)
    [error] = result.errors
    assert isinstance(error, GraphQLError)
    assert error.path == ["events", "account", "email"]


def test_ids_are_uuids_in_hexadecimal() -> None:
    key = UUID("0199d3b0-0000-7000-8000-000000000001")
    assert encode("acc", key) == "acc_0199d3b0000070008000000000000001"
    assert decode("acc_0199d3b0000070008000000000000001", "acc") == key
