"""A list that PostgreSQL writes as JSON equals the one that the ordinary executor makes."""

import json
from collections.abc import AsyncIterator

import pytest
import strawberry
from strawberry.schema.config import StrawberryConfig
from strawberry.types import Info

from server.assurance.types import SetupEvent
from server.context import Context
from server.graphql.connections import Node
from server.graphql.ids import decode
from server.graphql.scalars import SCALARS
from server.planner import ListPlan, install, plan_list, read_list
from tests.server.planner.world import Side

found: list[ListPlan | None] = []


@strawberry.type
class Query:
    @strawberry.field
    def nothing(self) -> Node | None:
        return None


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def events(self, info: Info[Context, None], id: strawberry.ID) -> AsyncIterator[SetupEvent]:
        where = {"account_id": decode(id, "acc")}
        found.append(plan_list(info, SetupEvent, where, after="sequence"))
        for _, event in await read_list(info, SetupEvent, where, after=("sequence", 0), limit=9):
            assert event is not None
            yield event


@pytest.fixture(scope="module")
def schema() -> strawberry.Schema:
    schema = strawberry.Schema(Query, subscription=Subscription, config=StrawberryConfig(scalar_map=SCALARS))
    install(schema._schema)
    return schema


async def plan(schema: strawberry.Schema, side: Side, selection: str) -> tuple[ListPlan, list[object]]:
    """The plan of a selection, and the events as the ordinary executor has them."""
    query = f"subscription($id: ID!) {{ events(id: $id) {{ {selection} }} }}"
    variables = {"id": side.account_id("member 00")}
    stream = await schema.subscribe(query, variables, context_value=side.context)
    events = [result.data["events"] async for result in stream if result.data is not None]
    made = found.pop()
    assert made is not None
    return made, events


SELECTION = """__typename sequence at account { was: name tags { key value } accountType { name } setup { id } }
    setup { id kind stages { name error { message } } account { __typename name } }
    stage { name error { message class } controls { id } }"""


async def test_events_as_json(schema: strawberry.Schema, ours: Side, theirs: Side) -> None:
    made, events = await plan(schema, ours, SELECTION)
    rows = await made.read(0, 9)
    assert [(number, json.loads(text or "")) for number, text in rows] == list(enumerate(events, 1))
    assert len(rows) == 2
    assert await made.read(0, 1) == rows[:1]
    assert await made.read(1, 9) == rows[1:]
    assert await made.read(2, 9) == []


async def test_plans_are_told_apart_by_what_they_show(schema: strawberry.Schema, ours: Side, theirs: Side) -> None:
    (one, _), (same, _) = [await plan(schema, ours, each) for each in ("sequence at", "at: at,\n sequence at")]
    assert one.key != same.key, "the order of the keys is the client's"
    (again, _), (less, _) = [await plan(schema, ours, each) for each in ("... { sequence } at", "sequence")]
    assert one.key == again.key != less.key
    (elsewhere, _) = await plan(schema, theirs, "sequence at")
    assert elsewhere.key != one.key
