"""What a document may cost: hostile ones are refused fast, real ones pass."""

import time

import httpx
import pytest
from graphql import get_introspection_query, parse

from server.graphql.limits import LIMITS, check_document, check_shape, parse_document
from server.schema import schema as api
from tests.server.graphql.schema import schema

CORE = schema._schema


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
    ("query", "measure"),
    [
        (HOSTILE["depth"], "depth"),
        (HOSTILE["aliases"], "aliases"),
        (HOSTILE["fields"], "fields"),
        (HOSTILE["directives"], "directives"),
        (HOSTILE["pages"], "rows"),
        (fragments(20), "fields"),
    ],
)
def test_the_error_names_the_limit(query: str, measure: str) -> None:
    messages = [error.message for error in check_shape(CORE, parse(query))]
    assert f"The operation is too large: more than {getattr(LIMITS, measure)} {measure}." in messages


def test_a_page_by_variable_counts_as_the_largest() -> None:
    query = (
        "query($n: Int) { items(first: $n) { nodes { items(first: $n) { nodes { items(first: $n) { nodes { name }}}}}}}"
    )
    assert check_shape(CORE, parse(query))
    assert not check_shape(CORE, parse(query.replace("$n)", "10)").replace("query($n: Int) ", "")))


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
    assert check_shape(api._schema, parse_document(query)) == []
