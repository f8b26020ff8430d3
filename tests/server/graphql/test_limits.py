"""What a document may cost: hostile ones are refused fast, real ones pass."""

import time
from typing import Any

import httpx
import pytest
from graphql import DocumentNode, GraphQLError, GraphQLSchema, get_introspection_query, parse

from server.graphql.documents import CheckedDocument
from server.graphql.limits import LIMITS, check_shape, parse_document
from server.schema import schema as api
from tests.server.graphql.schema import schema

CORE = schema._schema


def check_document(
    schema: GraphQLSchema, document: DocumentNode, variables: dict[str, Any] | None = None
) -> list[GraphQLError]:
    return CheckedDocument(schema, document).errors(None, variables)


def fragments(levels: int) -> str:
    """Fragments that each spread the next one twice: 2 to the power of `levels` fields when expanded."""
    chain = "".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }} " for n in range(levels))
    return f"{{ ...f0 }} {chain} fragment f{levels} on Query {{ hello }}"


HOSTILE = {
    "fragments": fragments(100),
    "depth": "{ items { nodes " * 1 + "{ items { nodes " * 40 + "{ name }" + "}}" * 41,
    "unparsable depth": "{" * 2900,
    "aliases": "{" + " ".join(f"a{n}: hello" for n in range(200)) + "}",
    "fields": "{" + " hello" * 2900 + "}",
    "directives": "{ hello" + " @include(if: true)" * 300 + "}",
    "arguments": "{ hello(" + 'name: "x" ' * 900 + ")}",
    "tokens": "{" + " hello" * 100_000 + "}",
    "pages": "{ items(first: 100) { nodes { items(first: 100) { nodes { items(first: 100) { nodes { name }}}}}}}",
    "variables": "query(" + " ".join(f"$v{n}: String" for n in range(700)) + ") { hello }",
    "introspection": "{ __schema { types " + "{ fields { type " * 20 + "{ name }" + "}}" * 20 + "}}",
    "cycle": "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
    "unknown fragment": "{ ...nowhere }",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_documents_are_refused_fast(client: httpx.AsyncClient, name: str) -> None:
    started = time.monotonic()
    accept = {"accept": "application/graphql-response+json"}
    response = await client.post("/graphql", json={"query": HOSTILE[name]}, headers=accept)
    assert response.status_code == 400
    assert response.json()["errors"]
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "query", ["fragment f on Query { hello }", "fragment f on Query { ...g } fragment g on Query { hello }"]
)
async def test_a_document_of_fragments_alone_is_told_what_it_lacks(client: httpx.AsyncClient, query: str) -> None:
    (error,) = (await client.post("/graphql", json={"query": query})).json()["errors"]
    assert error["message"] == "The document has fragments and no operation: add the query, mutation or subscription."
    assert (error["locations"][0], error["extensions"]) == ({"line": 1, "column": 1}, {"code": "VALIDATION"})


@pytest.mark.parametrize(
    ("query", "measure"),
    [
        (HOSTILE["depth"], "depth"),
        (HOSTILE["aliases"], "aliases"),
        (HOSTILE["fields"], "fields"),
        (HOSTILE["directives"], "directives"),
        (HOSTILE["pages"], "cost"),
        (fragments(20), "fields"),
    ],
)
def test_the_error_names_the_limit(query: str, measure: str) -> None:
    [message] = [error.message for error in check_shape(CORE, parse(query)) if f"its {measure} is" in error.message]
    assert message.startswith("The document is too large: ")
    assert message.endswith(f", the limit is {getattr(LIMITS, measure)}.")


@pytest.mark.parametrize(
    ("definition", "variables", "allowed"),
    [
        ("$n: Int", {"n": 10}, True),
        ("$n: Int", {"n": 100}, False),
        ("$n: Int", {"n": "10"}, False),
        ("$n: Int", {"n": None}, False),
        ("$n: Int", {}, False),
        ("$n: Int = 10", {}, True),
        ("$n: Int = 100", {}, False),
        ("$n: Int = 10", {"n": 100}, False),
    ],
)
def test_a_page_by_variable_counts_as_what_it_is(definition: str, variables: dict[str, Any], allowed: bool) -> None:
    query = "{ items(first: $n) { nodes { items(first: $n) { nodes { items(first: $n) { nodes { name }}}}}}}"
    assert (check_shape(CORE, parse(f"query({definition}) {query}"), variables) == []) is allowed


def test_a_fragment_shared_by_operations_counts_as_in_the_largest() -> None:
    fragment = "{ items(first: $n) { nodes { items(first: $n) { nodes { items(first: $n) { nodes { name }}}}}}}"
    operations = "query a($n: Int = 1) { ...f } query b($n: Int = 100) { ...f }"
    assert check_shape(CORE, parse(f"{operations} fragment f on Query {fragment}"))


OUTLINE = """
    query Accounts($first: Int) {
      accounts(first: $first) {
        totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
        nodes {
          id name alias email awsAccountId role origin status createdAt createdBy { kind name id } updatedAt
          accountType { id name foundation organizationalUnitId } tags { key value }
          setup { id kind status requestedAt startedAt finishedAt stages {
            name title position status attempts startedAt finishedAt nextAttemptAt
            controls { benchmark version id } error { code message class awsRequestId } } }
        }
      }
    }
"""


def test_the_pages_that_clients_need_pass() -> None:
    assert check_document(api._schema, parse(OUTLINE), {"first": 50}) == []
    assert check_document(api._schema, parse(OUTLINE), {"first": 100}) != []
    handful = "{ accounts(first: 100) { nodes { id name status awsAccountId accountType { name } setup { status } } } }"
    assert check_document(api._schema, parse(handful)) == []


@pytest.mark.parametrize(
    "query",
    [
        "{ accounts { nodes { accountType { accounts { nodes { accountType { accounts(first: 9) { nodes { id }}}}}}}}}",
        "{ accounts(first: 100) { nodes { setups(first: 100) { nodes { stages { name } } } } } }",
        "{ accounts(first: 100) { edges { node { setups(first: 10) { nodes { stages { controls { id } } } } } } } }",
        "{ a: __schema { types { name } }" + " __schema { types { fields { args { name } } } }" * 80 + "}",
    ],
)
def test_nested_lists_multiply(query: str) -> None:
    [error] = check_document(api._schema, parse(query))
    assert "its cost is" in error.message


@pytest.mark.parametrize(
    "query",
    [
        "{ hello } fragment f on Query {" + " hello" * 500 + "}",
        "{ ...f } fragment f on Query {" + " hello" * 400 + "} fragment f on Query { hello }",
        " ".join(f"query q{n} {{ {'hello ' * 300} }}" for n in range(4)),
        "{ hello } " + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} }}" for n in range(300)),
        "{" + " ...nowhere" * 900 + "}",
        "{ ...f } fragment f on Query {" + " ".join(f"x{n}: hello" for n in range(60)) + "}",
    ],
    ids=["unused", "two of a name", "operations", "chain", "unknown", "aliases"],
)
def test_no_part_of_a_document_escapes_the_limits(query: str) -> None:
    document = parse(query)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        assert check_document(CORE, document)
        seconds.append(time.process_time() - started)
    # The least of them, as a busy machine makes the same work longer, never shorter.
    assert min(seconds) < 0.1


def test_validation_that_is_broken_off_says_where_and_why() -> None:
    [error] = check_document(api._schema, parse("{ viewer {" + " name" * 990 + "} }"))
    assert "500000 steps" in error.message
    assert error.locations
    *_, last = check_document(CORE, parse("{" + " nope" * 500 + "}"))
    assert "20 errors or more" in last.message


def test_graphiql_s_introspection_passes() -> None:
    query = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    assert check_document(api._schema, parse_document(query)) == []


def test_a_page_of_the_console_passes() -> None:
    query = """
        query Accounts($first: Int, $after: String) {
          viewer { name role tenancy { name } }
          accounts(first: $first, after: $after) {
            totalCount
            pageInfo { hasNextPage endCursor }
            nodes {
              id name alias email awsAccountId role origin status createdAt updatedAt
              accountType { id name } tags { key value }
              setup { id status stages { name title status attempts controls { benchmark version id }
                      error { code message class } } }
            }
          }
          accountTypes { nodes { id name accounts(first: 20) { totalCount nodes { id name } } } }
        }
    """
    assert check_shape(api._schema, parse_document(query), {"first": 50}) == []
