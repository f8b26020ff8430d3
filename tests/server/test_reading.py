"""Reads over HTTP, from request to PostgreSQL's own bytes, and what happens when PostgreSQL refuses."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator

import asyncpg
import httpx
import pytest
from graphql import get_named_type

from server.config import Settings
from server.graphql.ids import encode
from server.graphql.request import LARGEST_BODY, decode_operation
from server.graphql.response import GRAPHQL, JSON
from server.schema import schema
from tests.server.fixtures import (
    NewTenant,
    Owner,
    Tenant,
    engine,
    new_tenant,
    owner,
    running,
    settings,
    tenant,
    until_ready,
    worker_engine,
)
from tests.server.places import nested, texts

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]

QUERY = "query Page($n: Int = 1) { accounts(first: $n) { totalCount nodes { name tags { key } } } tenancy { state } }"


@pytest.fixture(scope="module")
async def server(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings) as client:
        await until_ready(client)
        yield client


async def post(
    client: httpx.AsyncClient, tenant: Tenant, query: str, accept: str = JSON, **more: object
) -> httpx.Response:
    headers = {**tenant.headers, "accept": accept}
    return await client.post("/graphql", json={"query": query, **more}, headers=headers)


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_a_query_again_and_again(server: httpx.AsyncClient, new_tenant: NewTenant, accept: str) -> None:
    """The same request of several tenants, also when it is known by heart, answers each with what is theirs."""
    tenants = [await new_tenant() for _ in range(3)]
    for _ in range(2):
        for each in tenants:
            response = await post(server, each, "{ viewer { tenancy { id } tokenId } }", accept)
            assert response.status_code == 200
            assert response.headers["content-type"] == f"{accept}; charset=utf-8"
            assert response.headers["cache-control"] == "no-store"
            assert (
                response.content
                == (
                    f'{{"data":{{"viewer":{{"tenancy":{{"id":"{encode("ten", each.tenancy_id)}"}},'
                    f'"tokenId":"{encode("tok", each.token_id)}"}}}}}}'
                ).encode()
            )


async def test_the_same_answer_in_chunks(server: httpx.AsyncClient, tenant: Tenant) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in (b'{"query":', b'"{ tenancy ', b'{ state } }"}'):
            yield part
            await asyncio.sleep(0.01)

    headers = {**tenant.headers, "content-type": "application/json"}
    response = await server.post("/graphql", content=chunks(), headers=headers)
    assert response.json() == {"data": {"tenancy": {"state": "ACTIVE"}}}


async def test_a_failing_statement_is_an_error_where_it_failed(
    server: httpx.AsyncClient, tenant: Tenant, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    good = (await post(server, tenant, QUERY)).json()
    await owner.execute("REVOKE SELECT ON tag FROM freehold_app")
    try:
        with caplog.at_level(logging.WARNING):
            response = await post(server, tenant, QUERY)
    finally:
        await owner.execute("GRANT SELECT ON tag TO freehold_app")
    assert response.status_code == 200
    [error] = response.json()["errors"]
    assert (error["path"], error["extensions"]) == (["accounts"], {"code": "INTERNAL"})
    assert "tag" not in error["message"]
    # `accounts` is never null, so there is no data without it.
    assert response.json()["data"] is None
    assert (
        f"A query with the API token 'admin' of tenancy ten_{tenant.tenancy_id.hex} is read again, field by field:"
        " InsufficientPrivilegeError" in caplog.text
    )
    assert (await post(server, tenant, QUERY)).json() == good


async def test_what_did_not_fail_is_there(server: httpx.AsyncClient, tenant: Tenant, owner: Owner) -> None:
    query = 'query { tenancy { state } account(by: {name: "nobody"}) { tags { key } } policy(by: {name: "x"}) { id } }'
    await owner.execute("REVOKE SELECT ON tag FROM freehold_app")
    try:
        response = (await post(server, tenant, query)).json()
    finally:
        await owner.execute("GRANT SELECT ON tag TO freehold_app")
    assert response["data"] == {"tenancy": {"state": "ACTIVE"}, "account": None, "policy": None}
    [error] = response["errors"]
    assert error["path"] == ["account"]


async def test_a_statement_that_takes_too_long_is_not_read_again(
    server: httpx.AsyncClient, tenant: Tenant, owner: Owner, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of its fields would take as long; fifty of them would hold every connection."""
    query = '{ a: policy(by: {name: "x"}) { id } b: account(by: {name: "x"}) { id tags { key } } }'
    app = await asyncpg.connect(settings.require("database_url"))
    blocked = "SELECT pid FROM pg_locks WHERE relation = 'tag'::regclass AND NOT granted"
    try:
        async with owner.transaction():
            await owner.execute("LOCK TABLE tag IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(post(server, tenant, query))
            async with asyncio.timeout(10):
                while (pid := await app.fetchval(blocked)) is None:  # noqa: ASYNC110 - PostgreSQL tells nobody
                    await asyncio.sleep(0.01)
            with caplog.at_level(logging.WARNING):
                # As PostgreSQL does by itself after the time limit of the statement.
                await app.execute("SELECT pg_cancel_backend($1)", pid)
                async with asyncio.timeout(10):
                    response = await asking
    finally:
        await app.close()
    assert response.status_code == 200
    assert response.json()["data"] == {"a": None, "b": None}
    errors = response.json()["errors"]
    assert [(error["path"], error["extensions"]) for error in errors] == [
        (["a"], {"code": "UNAVAILABLE"}),
        (["b"], {"code": "UNAVAILABLE"}),
    ]
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 1


@pytest.mark.parametrize(
    ("controls", "below"), [('[{"benchmark": "CIS", "version": "5.0.0"}]', ["controls", 0, "id"]), ("[null]", [])]
)
async def test_a_member_that_is_missing_is_an_error(
    server: httpx.AsyncClient, tenant: Tenant, owner: Owner, controls: str, below: list[object]
) -> None:
    """What lies in a JSON column is not held to the schema by PostgreSQL; a null would pass for an answer."""
    await owner.execute(
        "INSERT INTO stage_definition VALUES ('broken', 99, 'Broken', '', $1::text::jsonb, '{}', '{}')", controls
    )
    try:
        response = await post(server, tenant, "{ stageCatalogue { controls { benchmark version id } } }")
    finally:
        await owner.execute("DELETE FROM stage_definition WHERE name = 'broken'")
    [error] = response.json()["errors"]
    assert (error["path"][0], error["path"][2:]) == ("stageCatalogue", below)
    assert response.json()["data"] is None


async def test_lists_without_end_are_refused_before_they_are_looked_at(
    server: httpx.AsyncClient, tenant: Tenant
) -> None:
    query = "query($f: AccountFilter) { accounts(filter: $f) { totalCount } }"
    response = await post(server, tenant, query, variables={"f": {"status": ["x"] * 50_000}})
    assert response.status_code == 400
    [error] = response.json()["errors"]
    assert error["message"] == "`variables.f.status` has 50000 values; a list may have 1000 at most."


@pytest.mark.parametrize(
    "variables",
    [{"k" * 400_000: [[0] * 1000] * 200}, {"k" * 400_000: [{"a": 0}] * 1000}, {f"k{at}": {} for at in range(60_000)}],
    ids=["lists", "objects", "keys"],
)
def test_a_request_of_a_megabyte_is_looked_through_at_once(variables: dict[str, object]) -> None:
    """With the path of every value made as a text, a long key took the event loop 4 seconds."""
    body = json.dumps({"query": "{ a }", "variables": variables}).encode()
    assert len(body) < LARGEST_BODY
    began = time.process_time()
    assert decode_operation(body).variables == variables
    assert time.process_time() - began < 1


@pytest.mark.parametrize("fields", ["first: 0", 'after: "x"'])
async def test_a_payload_that_cannot_be_read_is_refused_before_anything_is_written(
    server: httpx.AsyncClient, tenant: Tenant, owner: Owner, fields: str
) -> None:
    query = f"""mutation {{
        createAccountType(input: {{name: "Never made"}}) {{
            accountType {{ accounts({fields}) {{ totalCount }} }} userErrors {{ code }}
        }}
    }}"""
    response = (await post(server, tenant, query)).json()
    [error] = response["errors"]
    assert error["extensions"]["code"] == "VALIDATION"
    assert not await owner.fetchval(
        "SELECT EXISTS (SELECT FROM account_type WHERE tenancy_id = $1 AND name = 'Never made')", tenant.tenancy_id
    )


async def test_tables_change_while_they_are_read(server: httpx.AsyncClient, tenant: Tenant, owner: Owner) -> None:
    good = (await post(server, tenant, QUERY)).content
    try:
        for change in ("ADD COLUMN later text", "ALTER COLUMN later TYPE bytea USING NULL", "DROP COLUMN later"):
            await owner.execute(f"ALTER TABLE account {change}")
            answers = await asyncio.gather(*(post(server, tenant, QUERY) for _ in range(12)))
            assert {answer.content for answer in answers} == {good}
    finally:
        await owner.execute("ALTER TABLE account DROP COLUMN IF EXISTS later")


async def test_connections_are_killed_while_they_are_used(
    server: httpx.AsyncClient, tenant: Tenant, settings: Settings
) -> None:
    good = (await post(server, tenant, QUERY)).content
    killer = await asyncpg.connect(settings.require("database_url"))
    try:
        for _ in range(10):
            asking = asyncio.gather(*(post(server, tenant, QUERY) for _ in range(12)))
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'freehold-reader'"
            )
            assert {answer.content for answer in await asking} == {good}
    finally:
        await killer.close()


async def test_text_that_postgresql_cannot_hold(server: httpx.AsyncClient, tenant: Tenant) -> None:
    query = "query($n: String!) { account(by: {name: $n}) { id } }"
    response = await post(server, tenant, query, variables={"n": "a\0b"})
    assert response.status_code == 200
    [error] = response.json()["errors"]
    assert error["path"] == ["account"]
    assert error["extensions"] == {"code": "VALIDATION", "field": ["account", "by", "name"]}
    assert response.json()["data"] == {"account": None}


def places() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every place for text in the input of every mutation."""
    mutation = schema._schema.mutation_type
    assert mutation is not None
    for name, field in mutation.fields.items():
        yield from ((name, path) for path in texts(field.args["input"], ()))


@pytest.mark.parametrize(("mutation", "path"), list(places()), ids=str)
async def test_text_that_postgresql_cannot_hold_in_a_mutation(
    server: httpx.AsyncClient, tenant: Tenant, mutation: str, path: tuple[str, ...]
) -> None:
    assert schema._schema.mutation_type is not None
    field = schema._schema.mutation_type.fields[mutation]
    definition, shown = field.args["input"], "userErrors { code field }"
    # A batch tells what is wrong with each of its items there.
    if "results" in get_named_type(field.type).fields:
        shown += f" results {{ {shown} }}"
    query = f"mutation($input: {definition.type}) {{ {mutation}(input: $input) {{ {shown} }} }}"
    for text in ("a\0b", "\0"):
        response = await post(server, tenant, query, variables={"input": nested(definition, path, text)})
        assert "errors" not in response.json()
        payload = response.json()["data"][mutation]
        errors = [error for each in (payload, *payload.get("results", ())) for error in each["userErrors"]]
        assert {error["code"] for error in errors} <= {"VALIDATION", "NOT_FOUND", "INVALID_DOCUMENT"}
        assert errors
