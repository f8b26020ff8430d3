"""Plans: what decides a statement, that values never do, what is kept, and how much of it."""

import gc
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import strawberry
from graphql import (
    get_named_type,
)
from strawberry.schema.config import StrawberryConfig

from server.accounts import models
from server.accounts.types import AccountBy
from server.context import Context, Viewer
from server.graphql.documents import Documents
from server.graphql.ids import encode
from server.graphql.request import Operation
from server.graphql.scalars import SCALARS
from server.graphql.schema import Schema
from server.identity.models import Role
from server.planner import install
from server.planner.mapping import column, lookup, requires, table
from server.planner.plans import MOST_PLANS
from server.schema import schema
from tests.server.places import nested, texts
from tests.server.planner.world import HOSTILE, Side


def sql(query: str, variables: dict[str, Any] | None = None, role: Role = Role.READONLY) -> str | None:
    planned = schema.documents.plan(Operation(query, None, variables), role)
    return None if planned is None else planned.statement.sql


@pytest.mark.parametrize(
    ("query", "one", "other", "same"),
    [
        ("query($n: Int) { accounts(first: $n) { nodes { id } } }", {"n": 3}, {"n": 4}, False),
        ("query($n: Int) { accounts(first: $n) { nodes { id } } }", {"n": 50}, {}, True),
        ("query($n: Int) { accounts(first: $n) { nodes { id } } }", {"n": None}, {}, True),
        (
            "query($f: AccountFilter) { accounts(filter: $f) { nodes { id } } }",
            {"f": None},
            {"f": {"search": "a"}},
            False,
        ),
        (
            "query($f: AccountFilter) { accounts(filter: $f) { nodes { id } } }",
            {"f": {"search": "a", "status": ["ERROR"]}},
            {"f": {"search": "b", "status": ["ACTIVE", "ERROR"]}},
            True,
        ),
        (
            "query($f: AccountFilter) { accounts(filter: $f) { nodes { id } } }",
            {"f": {"tag": [{"key": "a"}]}},
            {"f": {"tag": [{"key": "a", "value": "b"}]}},
            False,
        ),
        ("query($s: Boolean!) { tenancy { id name @skip(if: $s) } }", {"s": True}, {"s": False}, False),
        (
            "query($id: ID!) { node(id: $id) { id } }",
            {"id": "acc_" + "0" * 32},
            {"id": "typ_" + "0" * 32},
            False,
        ),
        ("query($id: ID!) { node(id: $id) { id } }", {"id": "acc_" + "0" * 32}, {"id": "acc_" + "1" * 32}, True),
    ],
)
def test_what_decides_a_statement(query: str, one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    first, second = sql(query, one), sql(query, other)
    assert first is not None
    assert second is not None
    assert (first == second) is same
    # Found again, rather than compiled again.
    assert sql(query, one) is first
    assert sql(query, other) is second


@pytest.mark.parametrize(
    "query",
    [
        "{ __schema { queryType { name } } }",
        "{ __typename }",
        '{ tenancy { id } __type(name: "Account") { name } }',
        "mutation { retryAccountSetup(input: {accountId: 3}) { userErrors { code } } }",
        "{ nope }",
        "{",
        "{ accounts(first: 101) { totalCount } }",
        '{ accounts(after: "nonsense") { totalCount } }',
        '{ accounts(filter: {search: "\\u0000"}) { totalCount } }',
        "query($n: Int!) { accounts(first: $n) { totalCount } }",
        "query A { tenancy { id } } query B { tenancy { id } }",
    ],
)
def test_what_has_no_plan(query: str) -> None:
    assert sql(query) is None


def test_an_argument_is_checked_whatever_is_selected() -> None:
    for selection in ("totalCount", "pageInfo { hasNextPage }", "nodes { id }", "__typename"):
        assert sql(f"{{ accounts(first: 0) {{ {selection} }} }}") is None


def arguments() -> Iterator[tuple[str, str, str, str]]:
    """Every place in an argument of a root field that takes text: field, variable's type, the argument, its path."""
    query_type = schema._schema.query_type
    assert query_type is not None
    for name, field in query_type.fields.items():
        for argument, definition in field.args.items():
            for path in texts(definition, ()):
                yield name, str(definition.type), argument, ".".join(path)


@pytest.mark.parametrize("place", list(arguments()), ids=" ".join)
async def test_a_value_is_never_part_of_a_statement(place: tuple[str, str, str, str], ours: Side) -> None:
    """Hostile text in every place gives the statement of harmless text, or none and an error that is located."""
    field, type_, argument, path = place
    assert schema._schema.query_type is not None
    definition = schema._schema.query_type.fields[field].args[argument]
    named = get_named_type(schema._schema.query_type.fields[field].type)
    selection = "totalCount nodes { id }" if named.name.endswith("Connection") else "id"
    query = f"query($value: {type_}) {{ {field}({argument}: $value) {{ {selection} }} }}"
    found = set()
    for text in (*HOSTILE, "harmless", "acc_" + "0" * 32, "a\0b", "$1", "$$", "\\", "'", '"', "''", "%s", "{row}"):
        result = await ours.execute(query, {"value": nested(definition, path.split(".") if path else [], text)})
        if result.errors:
            [error] = result.errors
            assert error.path == [field]
            assert error.extensions is not None
            assert error.extensions["code"] == "VALIDATION"
        else:
            found.add(sql(query, {"value": nested(definition, path.split(".") if path else [], text)}))
    assert len(found) <= 1
    assert None not in found


def test_documents_that_never_repeat_do_not_grow_memory() -> None:
    documents = Documents(schema._schema, largest=1_000_000)

    def ask(numbers: range) -> None:
        for number in numbers:
            query = f"query($n: Int) {{ accounts(first: $n) {{ a{number}: nodes {{ id name tags {{ key }} }} }} }}"
            for size in (1, 2):
                assert documents.plan(Operation(query, None, {"n": size}), Role.READONLY) is not None

    ask(range(150))
    tracemalloc.start()
    try:
        ask(range(150, 300))
        # A parsed document is a circle of tokens, which wait for the collector.
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        ask(range(300, 600))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert documents.size <= 1_000_000
    assert after - before < 200_000


def test_one_document_with_ever_other_arguments_keeps_few_plans() -> None:
    documents = Documents(schema._schema)
    query = """query($n: Int, $m: Int) { accounts(first: $n) { nodes { id } }
        accountTypes(first: $m) { nodes { id } } }"""
    sizes = []
    for number in range(1, 101):
        for other in (1, 2, 3):
            planned = documents.plan(Operation(query, None, {"n": number, "m": other}), Role.READONLY)
            assert planned is not None
        sizes.append(documents.size)
    assert max(sizes) < 2 * max(sizes[: MOST_PLANS // 3])


def test_variables_with_ever_so_many_errors_are_refused_at_the_first() -> None:
    """A search for all of them prints each time what is wrong: 8,000 took 6 seconds of the event loop."""
    query = "query($f: AccountFilter) { accounts(filter: $f) { totalCount } }"
    began = time.process_time()
    assert sql(query, {"f": {f"unknown{number}": 1 for number in range(8_000)}}) is None
    assert time.process_time() - began < 2


# Permissions.


@strawberry.type
@table(models.Account, node="acc")
class Guarded:
    id: strawberry.ID
    name: str
    email: str = requires(Role.OPERATOR, column("email"))


@strawberry.type
class GuardedQuery:
    account: Guarded | None = lookup(AccountBy)
    secret: Guarded | None = requires(Role.ADMIN, lookup(AccountBy))


@pytest.fixture(scope="module")
def guarded() -> Schema:
    built = Schema(GuardedQuery, config=StrawberryConfig(scalar_map=SCALARS))
    install(built._schema)
    return built


@pytest.mark.parametrize(
    ("role", "field", "select", "allowed"),
    [
        (Role.READONLY, "account", "name", True),
        (Role.READONLY, "account", "email", False),
        (Role.USER, "account", "x: email", False),
        (Role.OPERATOR, "account", "email", True),
        (Role.ADMIN, "account", "email", True),
        (Role.OPERATOR, "secret", "name", False),
        (Role.ADMIN, "secret", "name", True),
    ],
)
async def test_a_field_is_for_those_who_have_its_role(
    guarded: Schema, ours: Side, role: Role, field: str, select: str, allowed: bool
) -> None:
    query = f"query($id: ID!) {{ {field}(by: {{id: $id}}) {{ id {select} }} }}"
    variables = {"id": encode("acc", ours.accounts["Security"])}
    for _ in range(2):
        planned = guarded.documents.plan(Operation(query, None, variables), role)
        assert (planned is not None) is allowed
    viewer = Viewer(ours.token, "token", ours.tenancy, role)
    context = Context(viewer, ours.context.engine, ours.reader, ours.context.hub)
    result = await guarded.execute(query, variables, context_value=context)
    if allowed:
        assert result.errors is None
        return
    assert result.errors is not None
    assert result.data == {field: None}
    [error] = result.errors
    assert error.path == [field]
    assert error.extensions is not None
    assert error.extensions["code"] == "FORBIDDEN"
    assert f"has the role {role}" in error.message
