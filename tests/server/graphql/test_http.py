"""GraphQL over HTTP: what a request gets back, whatever the request is."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from graphql import get_introspection_query

from server.graphql.response import GRAPHQL, JSON, media_type
from tests.server.fixtures import Tenant
from tests.server.graphql.harness import Address
from tests.server.graphql.schema import SECRET_DETAIL


async def post(client: httpx.AsyncClient, query: str, accept: str = GRAPHQL, **more: Any) -> httpx.Response:
    return await client.post("/graphql", json={"query": query, **more}, headers={"accept": accept})


async def test_a_query_is_answered(client: httpx.AsyncClient) -> None:
    response = await post(client, "query($n: String!) { hello(name: $n) me }", variables={"n": "é"})
    assert (response.status_code, response.json()) == (200, {"data": {"hello": "hello é", "me": "admin"}})
    assert response.headers["content-type"] == f"{GRAPHQL}; charset=utf-8"
    assert "server" not in response.headers
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer nonsense", "Basic Zm9vOmJhcg=="])
async def test_without_a_valid_token_nothing_is_answered(
    address: Address, authorization: str | None, accept: str
) -> None:
    headers = {"accept": accept} | ({} if authorization is None else {"authorization": authorization})
    async with httpx.AsyncClient(headers=headers) as client:
        response = await client.post(address.http, json={"query": get_introspection_query()})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"].startswith(accept)
    assert response.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    assert "data" not in response.json()


async def test_the_scheme_of_the_token_is_case_insensitive(address: Address, tenant: Tenant) -> None:
    async with httpx.AsyncClient(headers={"authorization": f"bEARER {tenant.secret}"}) as client:
        assert (await client.post(address.http, json={"query": "{ me }"})).status_code == 200


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/html", JSON),
        (JSON, JSON),
        (GRAPHQL, GRAPHQL),
        (f"{GRAPHQL}, {JSON}", GRAPHQL),
        (f"{JSON}, {GRAPHQL}", JSON),
        (f"{GRAPHQL}; charset=utf-8, {JSON}; q=0.9", GRAPHQL),
        (f"{GRAPHQL};q=0.5, {JSON}", JSON),
        (f"{GRAPHQL};q=0, */*", JSON),
        (f"{GRAPHQL}, */*;q=0.1", GRAPHQL),
        (f"{GRAPHQL};q=nonsense", JSON),
    ],
)
def test_the_media_type_is_what_the_client_prefers(accept: str | None, expected: str) -> None:
    assert media_type(accept) == expected


@pytest.mark.parametrize(("accept", "status"), [(GRAPHQL, 400), (JSON, 200)])
@pytest.mark.parametrize(
    "body",
    [
        {"query": "{"},
        {"query": "{ nope }"},
        {"query": "query($n: Int!) { items(first: $n) { nodes { name } } }"},
        {"query": "query($n: Int!) { items(first: $n) { nodes { name } } }", "variables": {"n": "x"}},
    ],
)
async def test_what_cannot_be_executed_has_no_data(
    client: httpx.AsyncClient, body: dict[str, Any], accept: str, status: int
) -> None:
    response = await client.post("/graphql", json=body, headers={"accept": accept})
    assert response.status_code == status
    assert list(response.json()) == ["errors"]
    assert [error["extensions"] for error in response.json()["errors"]] == [{"code": "VALIDATION"}]
    assert "extensions" not in response.json()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"1",
        b'"x"',
        b"[]",
        b'[{"query": "{ hello }"}]',
        b"{}",
        b'{"query": null}',
        b'{"query": 1}',
        b'{"query": "  "}',
        b'{"query": "{ hello }", "variables": []}',
        b'{"query": "{ hello }", "variables": 1}',
        b'{"query": "{ hello }", "extensions": "x"}',
        b'{"query": "{ hello }", "operationName": 1}',
        b'{"query": "{ hello }", "operationName": "absent"}',
        b'{"query": "query a { hello } query b { hello }"}',
        b'{"query": "{ hello }", "variables": {"a": NaN}}',
        b'{"query": "{ hello }", "variables": {"a": Infinity}}',
        b'{"query": "{ hello }", "query": "{ hello }"}',
        b'{"query": "{ hello }", "variables": {"a": [{"b": 1, "\\u0062": 2}]}}',
        b'{"query": "{ hello }", "variables": {"a": ' + b"9" * 5000 + b"}}",
        b'{"query": "{ hello }", "variables": {"a": "\\ud800"}}',
        b'\xff{"query": "{ hello }"}',
        b'{"query": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        '{"query": "{ hello }"}'.encode("utf-16"),
    ],
    ids=lambda body: repr(body[:60]),
)
async def test_a_malformed_request_is_a_bad_request(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post(
        "/graphql", content=body, headers={"content-type": "application/json", "accept": GRAPHQL}
    )
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"]
    assert "data" not in response.json()


async def test_characters_outside_the_basic_plane_are_fine(client: httpx.AsyncClient) -> None:
    body = b'{"query": "query($n: String!) { hello(name: $n) }", "variables": {"n": "\\ud83d\\ude00"}}'
    response = await client.post("/graphql", content=body, headers={"content-type": "application/json; charset=utf-8"})
    assert response.json() == {"data": {"hello": "hello \U0001f600"}}


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "application/jsonx", ""],
)
async def test_only_json_is_read(client: httpx.AsyncClient, content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = await client.post("/graphql", content=b'{"query": "{ hello }"}', headers=headers)
    assert response.status_code == 415


async def test_queries_by_get_are_refused(client: httpx.AsyncClient) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        response = await client.request(method, "/graphql", params={"query": "{ hello }"})
        assert response.status_code == 405
        assert "data" not in response.text


async def test_the_page_for_people_needs_no_token(address: Address) -> None:
    async with httpx.AsyncClient(headers={"accept": "text/html"}) as client:
        response = await client.get(address.http)
    assert response.status_code == 200
    assert "GraphiQL" in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_large_body_is_refused_before_it_is_read(client: httpx.AsyncClient) -> None:
    body = json.dumps({"query": "{ hello }", "variables": {"a": "x" * 1024 * 1024}}).encode()
    response = await client.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 413


async def test_a_large_body_in_chunks_is_refused(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 64 * 1024

    response = await client.post("/graphql", content=chunks(), headers={"content-type": "application/json"})
    assert response.status_code == 413


async def test_a_subscription_by_post_is_refused_with_a_reason(client: httpx.AsyncClient) -> None:
    response = await post(client, "subscription { count(to: 1) }")
    assert response.status_code == 400
    assert "graphql-transport-ws" in response.json()["errors"][0]["message"]


async def test_a_fault_is_shown_as_an_id_and_logged_with_it(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await post(client, "{ broken hello }")
    (error,) = response.json()["errors"]
    assert response.status_code == 200
    assert response.json()["data"] == {"broken": None, "hello": "hello world"}
    assert (error["path"], error["extensions"]) == (["broken"], {"code": "INTERNAL"})
    assert error["message"].startswith("Something went wrong on our side. Error id: ")
    assert SECRET_DETAIL not in response.text
    error_id = error["message"].split()[-1]
    (record,) = [record for record in caplog.records if error_id in record.getMessage()]
    assert record.exc_info is not None
    assert SECRET_DETAIL in str(record.exc_info[1])


async def test_an_error_on_purpose_keeps_its_message_and_code(client: httpx.AsyncClient) -> None:
    (error,) = (await post(client, "{ missing }")).json()["errors"]
    assert error["message"] == "There is no such thing."
    assert error["extensions"] == {"code": "NOT_FOUND"}
    assert error["path"] == ["missing"]


async def test_suggestions_help_who_has_a_token(client: httpx.AsyncClient) -> None:
    assert "Did you mean 'hello'?" in (await post(client, "{ helo }")).json()["errors"][0]["message"]


async def test_no_exception_of_a_resolver_is_logged_twice_or_for_the_client_s_own_errors(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await post(client, "{ missing nope }")
    await post(client, "{ missing }")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
