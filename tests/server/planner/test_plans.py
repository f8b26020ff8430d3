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
from sqlalchemy import update
from strawberry.schema.config import StrawberryConfig
from strawberry.types import Info

from server.accounts import models
from server.accounts.types import AccountBy
from server.context import Context, Viewer
from server.graphql.documents import CheckedDocument, Documents
from server.graphql.errors import UserError
from server.graphql.ids import decode, encode
from server.graphql.limits import parse_document
from server.graphql.mutations import QUESTION, mutate, mutation
from server.graphql.request import Operation
from server.graphql.scalars import SCALARS
from server.graphql.schema import Schema
from server.identity.models import Role
from server.planner import install
from server.planner.compiler import MOST_JOINED
from server.planner.mapping import column, lookup, requires, table
from server.planner.plans import MOST_PLANS
from server.planner.read import read_payload
from server.planner.statement import LARGEST_STATEMENT
from server.schema import schema
from tests.server.places import nested, texts
from tests.server.planner.world import HOSTILE, Side, World


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
    """Every place for text in an argument of a root field that is read: field, variable's type, argument, path."""
    query_type = schema._schema.query_type
    assert query_type is not None
    for name, field in query_type.fields.items():
        if QUESTION in field.extensions["strawberry-definition"].metadata:
            continue
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
    selection = "totalCount nodes { __typename }" if named.name.endswith("Connection") else "id"
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


def test_many_conditions_do_not_make_postgresql_search_for_the_best_of_all_orders() -> None:
    """Ten tags in each of fifty lists took it 10 seconds and 2 gigabytes."""
    query = "query($f: AccountFilter) { accounts(filter: $f) { nodes { id } } }"
    statement = sql(query, {"f": {"tag": [{"key": str(number)} for number in range(10)]}})
    assert statement is not None
    assert statement.count("exists (") == 10
    assert statement.count("offset 0") == 10 - MOST_JOINED


def test_a_statement_has_an_end() -> None:
    """What would be longer is read field by field."""
    lists = " ".join(f"a{number}: accounts(filter: $f) {{ totalCount nodes {{ id }} }}" for number in range(50))
    query = f"query($f: AccountFilter) {{ {lists} }}"
    few, many = ({"f": {"tag": [{"key": str(number)} for number in range(tags)]}} for tags in (1, 10))
    statement = sql(query, few)
    assert statement is not None
    assert len(statement) < LARGEST_STATEMENT
    assert sql(query, many) is None


def test_values_that_make_a_statement_too_long_take_no_plan_from_others() -> None:
    documents = Documents(schema._schema)
    lists = " ".join(f"a{number}: accounts(filter: $f) {{ totalCount nodes {{ id }} }}" for number in range(50))
    query = f"query($f: AccountFilter) {{ {lists} }}"
    few, many = ({"f": {"tag": [{"key": str(number)} for number in range(tags)]}} for tags in (1, 10))
    for variables, planned in ((few, True), (many, False), (few, True)):
        assert (documents.plan(Operation(query, None, variables), Role.READONLY) is not None) is planned


def test_what_has_no_plan_counts_too() -> None:
    """Every combination of the variables of @skip leads to an answer of its own, also to none."""
    documents = Documents(schema._schema)
    names = [f"s{number}" for number in range(10)]
    fields = " ".join(f"{name}: __typename @skip(if: ${name})" for name in names)
    query = f"query({' '.join(f'${name}: Boolean!' for name in names)}) {{ {fields} }}"
    sizes = []
    for number in range(3 * MOST_PLANS):
        variables = {name: bool(number >> place & 1) for place, name in enumerate(names)}
        assert documents.plan(Operation(query, None, variables), Role.READONLY) is None
        sizes.append(documents.size)
    assert sizes[MOST_PLANS // 2] > sizes[0]
    assert max(sizes) == max(sizes[: MOST_PLANS + 1])


async def test_a_field_that_is_too_large_says_so(ours: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """No field of this schema is as large yet within the limits of documents."""
    monkeypatch.setattr("server.planner.statement.LARGEST_STATEMENT", 1000)
    error = await ours.refused("{ viewer { tokenId } accounts { nodes { id tags { key value } setup { id } } } }")
    assert error["path"] == ["accounts"]
    assert error["extensions"]["code"] == "VALIDATION"
    assert "select fewer fields" in error["message"]


@pytest.mark.parametrize(
    "document",
    [
        "{" + " ".join(f"a{each}: viewer {{ tenancy {{ id }} }}" for each in range(45)) + "}",
        "{ accounts { nodes { " + "id name " * 200 + "} } }",
        "{ viewer { tokenId } "
        + " ".join(f"...F{each}" for each in range(100))
        + "}"
        + " ".join(f"fragment F{each} on Query {{ viewer {{ tokenId }} }}" for each in range(100)),
        " ".join(f"query O{each} {{ viewer {{ tokenId }} }}" for each in range(200)),
    ],
    ids=["aliases", "fields", "fragments", "operations"],
)
def test_a_document_takes_no_more_than_it_is_counted_for(document: str) -> None:
    kept = []
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(8):
            kept.append(CheckedDocument(schema._schema, parse_document(f"{document} # {number}")))
            for name in (None, "O1", "O2"):
                if not kept[-1].errors(name, None):
                    assert kept[-1].query(name) is not None or name
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counted = sum(each.size for each in kept)
    assert counted / 2.5 < taken < counted * 1.25


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


@strawberry.type
class GuardedPayload:
    account: Guarded | None
    user_errors: list[UserError]


@strawberry.type
class GuardedMutation:
    @mutation(Role.READONLY)
    async def change(self, info: Info[Context, None], id: strawberry.ID) -> GuardedPayload:
        account_id = decode(id, "acc")
        await mutate(
            info,
            lambda session: session.execute(
                update(models.Account).where(models.Account.id == account_id).values(email=models.Account.email + "x")
            ),
        )
        return await read_payload(info, GuardedPayload, account=account_id)


@pytest.fixture(scope="module")
def guarded() -> Schema:
    built = Schema(GuardedQuery, mutation=GuardedMutation, config=StrawberryConfig(scalar_map=SCALARS))
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


async def test_an_answer_that_may_not_be_read_is_refused_before_anything_is_written(
    guarded: Schema, ours: Side, world: World
) -> None:
    account = ours.accounts["Security"]
    viewer = Viewer(ours.token, "token", ours.tenancy, Role.READONLY)
    context = Context(viewer, ours.context.engine, ours.reader, ours.context.hub)
    email = "SELECT email FROM account WHERE id = $1"
    before = await world.owner.fetchval(email, account)
    for fields in (
        "account { email }",
        "account { ...F }",
        "account { id ... on Guarded { email } } userErrors { code }",
    ):
        fragment = "fragment F on Guarded { email }" if "...F" in fields else ""
        query = f"mutation($id: ID!) {{ change(id: $id) {{ {fields} }} }} {fragment}"
        result = await guarded.execute(query, {"id": encode("acc", account)}, context_value=context)
        assert result.errors is not None
        [error] = result.errors
        assert error.extensions is not None
        assert error.extensions["code"] == "FORBIDDEN"
    assert await world.owner.fetchval(email, account) == before
