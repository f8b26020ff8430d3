"""Queries generated from the schema, answered by PostgreSQL alone and by the ordinary executor, byte for byte.

The two share the compiler; resolvers over the rows in memory, which share nothing with it, must give the same. What
fails is shrunk to the smallest query that still shows it, and printed with what reproduces it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from graphql import GraphQLSchema, build_schema
from hypothesis import HealthCheck, given, settings

from server.graphql.ids import encode
from server.planner.reader import Reader
from server.schema import schema
from tests.server.planner.operations import Generated, operations
from tests.server.planner.reference import Reference
from tests.server.planner.world import HOSTILE, CountingReader, Side, World

LISTS: dict[str, Sequence[str]] = {
    "accounts": ("NAME", "CREATED_AT", "UPDATED_AT"),
    "accountTypes": ("NAME", "CREATED_AT"),
    "policies": ("NAME", "CREATED_AT"),
    "groups": ("NAME", "CREATED_AT"),
    "users": ("NAME", "CREATED_AT"),
}


def what_is_read() -> GraphQLSchema:
    """The schema without what is worked out, which is not read by its mapping."""
    core = build_schema(schema.as_str())
    assert core.query_type is not None
    del core.query_type.fields["previewPolicy"]
    return core


async def cursors(side: Side) -> dict[str, list[str | None]]:
    """Places in every list, those of its own order twice as often, for `after` and `before`."""
    found: dict[str, list[str]] = {}
    for name, orders in LISTS.items():
        places = await edges(side, f"{{ {name} {{ edges {{ cursor }} }} }}", name)
        for order in orders:
            for direction in ("ASC", "DESC"):
                by = f"{{field: {order}, direction: {direction}}}"
                places += (await edges(side, f"{{ {name}(orderBy: {by}) {{ edges {{ cursor }} }} }}", name))[::9]
        found[f"Query.{name}"] = places
    found["Query.tagKeys"] = await edges(side, "{ tagKeys { edges { cursor } } }", "tagKeys")
    keys = (await side.ask("{ tagKeys { nodes { values { edges { cursor } } } } }"))["tagKeys"]["nodes"]
    found["TagKey.values"] = [edge["cursor"] for key in keys for edge in key["values"]["edges"]]
    setups = 'account(by: {name: "member 00"}) { setups { edges { cursor } } }'
    found["Account.setups"] = await edges(side, f"{{ {setups} }}", "account", "setups")
    accounts = 'accountType(by: {name: "general"}) { accounts { edges { cursor } } }'
    found["AccountType.accounts"] = await edges(side, f"{{ {accounts} }}", "accountType", "accounts")
    bad = ["", "nonsense", "WzFd", found["Query.policies"][0]]
    return {f"{name}.{side}": [None, *places, *bad] for name, places in found.items() for side in ("after", "before")}


async def edges(side: Side, query: str, *path: str) -> list[str]:
    answer = await side.ask(query)
    for step in path:
        answer = answer[step]
    return [edge["cursor"] for edge in answer["edges"]]


async def values(ours: Side, theirs: Side) -> dict[str, Sequence[Any]]:
    """What arguments may be: what is there, what is not, and what no argument may be."""
    accounts = [encode("acc", key) for key in list(ours.accounts.values())[::5]]
    types = [encode("typ", key) for key in ours.types.values()]
    others = [
        *(encode("set", key) for key in ours.setups[:3]),
        *(encode("pol", key) for key in ours.policies.values()),
        *(encode("att", key) for key in ours.attachments),
        *(encode("grp", key) for key in ours.groups.values()),
        *(encode("usr", key) for key in list(ours.users.values())[:2]),
        encode("ten", ours.tenancy),
    ]
    wrong = [encode("tok", ours.token), "acc_1"]
    text = [*HOSTILE, "", "member", "MEMBER 0", "é", "$1", "$$", "'", '"', "\\", "%"]
    return {
        **await cursors(ours),
        "ID": [*accounts, *types, *others, encode("acc", theirs.accounts["Security"]), *wrong],
        "AccountBy.id": [*accounts, encode("acc", theirs.accounts["Security"]), wrong[0]],
        "AccountTypeBy.id": [*types, encode("typ", theirs.types["general"])],
        "AccountFilter.accountTypeId": [*types, *types, encode("typ", theirs.types["general"]), wrong[1]],
        "PolicyBy.id": [encode("pol", key) for key in ours.policies.values()],
        "first": [None, 1, 2, 3, 4, 5, 10, 50, 100, 0, 101],
        "last": [None, None, None, None, None, 1, 2, 5, 100, -1],
        "String": [*text, "a\0b"],
        "AccountBy.name": [*list(ours.accounts)[::3], "Security", "nobody", *text],
        "AccountBy.awsAccountId": ["000000000003", "000000000005", "nothing", "\0"],
        "AccountTypeBy.name": [*ours.types, "GENERAL", "none"],
        "PolicyBy.name": [*ours.policies, "none"],
        "GroupBy.id": [*(encode("grp", key) for key in ours.groups.values()), encode("grp", theirs.groups["Platform"])],
        "GroupBy.name": [*ours.groups, "PLATFORM", "none"],
        "UserBy.id": [encode("usr", key) for key in ours.users.values()],
        "UserBy.email": [*ours.users, "USER1@EXAMPLE.COM", "nobody@example.com"],
        "TagFilter.key": ["team", "stage", "team", "stage", "hostile", "none", *HOSTILE[:3]],
        "TagFilter.value": [None, None, "t0", "t1", "prod", "", *HOSTILE[:3]],
    }


def compare(world: World, reference: Reference, number: int) -> None:
    """Raises AssertionError for a query that the two, or the reference, answer differently."""
    with asyncio.Runner() as runner:
        # Connections belong to the loop that they were made in.
        counting, reader = CountingReader(world.dsn), Reader(world.dsn)
        ours, theirs = (replace(side, reader=counting, uncounted=reader) for side in (world.ours, world.theirs))
        pools = runner.run(values(ours, theirs))

        @settings(
            max_examples=number,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        # What says @oneOf is in the SDL alone.
        @given(operations(what_is_read(), pools))
        def same(generated: Generated) -> None:
            request = generated.query, generated.variables, generated.operation_name
            result = runner.run(ours.execute(*request))
            assert reference.answer(*request) == (None if result.errors else result.data), request
            counting.statements.clear()

        try:
            same()
        finally:
            runner.run(counting.close())
            runner.run(reader.close())


def test_both_executors_give_the_same_answers(world: World, reference: Reference) -> None:
    compare(world, reference, 500)


@pytest.mark.differential
def test_both_executors_give_the_same_answers_20_000_times(world: World, reference: Reference) -> None:
    compare(world, reference, 20_000)
