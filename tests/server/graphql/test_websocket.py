"""graphql-transport-ws over real sockets: the protocol, hostile messages, tokens, and the end of it all."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport
from sqlalchemy.ext.asyncio import AsyncEngine
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from server.graphql.hub import Hub
from tests.server.fixtures import Owner, Tenant, serving
from tests.server.graphql.harness import ORIGIN, Address, application, endpoint
from tests.server.graphql.schema import SECRET_DETAIL
from tests.server.waiting import until

PROTOCOL = [Subprotocol("graphql-transport-ws")]


def init(secret: str, key: str = "Authorization") -> dict[str, Any]:
    return {"type": "connection_init", "payload": {key: f"Bearer {secret}"}}


def subscribe(query: str, id_: str = "1", **payload: Any) -> dict[str, Any]:
    return {"type": "subscribe", "id": id_, "payload": {"query": query, **payload}}


async def send(socket: ClientConnection, message: Any) -> None:
    await socket.send(json.dumps(message))


async def receive(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


async def nobody_reads(hub: Hub) -> None:
    async def nobody() -> bool:
        return hub.readers == 0

    await until(nobody)


async def closed(socket: ClientConnection) -> tuple[int, str]:
    async def read_on() -> None:
        async for _ in socket:
            pass
        await socket.recv()

    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(read_on(), 10)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


@asynccontextmanager
async def acknowledged(address: Address, tenant: Tenant) -> AsyncIterator[ClientConnection]:
    async with connect(address.websocket, subprotocols=PROTOCOL) as socket:
        await send(socket, init(tenant.secret))
        assert await receive(socket) == {"type": "connection_ack"}
        yield socket


async def test_a_real_client_subscribes(address: Address, tenant: Tenant) -> None:
    transport = WebsocketsTransport(
        url=address.websocket,
        init_payload={"authorization": f"Bearer {tenant.secret}"},
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
    )
    async with Client(transport=transport) as session:
        numbers = [result["count"] async for result in session.subscribe(gql("subscription { count(to: 3) }"))]
    assert numbers == [1, 2, 3]


async def test_queries_and_mutations_run_too(address: Address, tenant: Tenant) -> None:
    async with acknowledged(address, tenant) as socket:
        await send(socket, subscribe("{ me }"))
        assert (await receive(socket))["payload"] == {"data": {"me": "admin"}}
        assert await receive(socket) == {"id": "1", "type": "complete"}


@pytest.mark.parametrize("key", ["Authorization", "authorization", "AUTHORIZATION"])
async def test_the_key_of_the_token_is_case_insensitive(address: Address, tenant: Tenant, key: str) -> None:
    async with connect(address.websocket, subprotocols=PROTOCOL) as socket:
        await send(socket, init(tenant.secret, key))
        assert await receive(socket) == {"type": "connection_ack"}


@pytest.mark.parametrize(
    "payload", [None, {}, {"Authorization": None}, {"Authorization": ["Bearer x"]}, {"Authorization": "Basic eDp5"}]
)
async def test_a_socket_without_a_token_is_told_how_to_send_it(address: Address, payload: Any) -> None:
    async with connect(address.websocket, subprotocols=PROTOCOL) as socket:
        await send(socket, {"type": "connection_init", "payload": payload})
        expected = 'Send {"Authorization": "Bearer <token>"} as the payload of connection_init.'
        assert await closed(socket) == (4403, expected)


async def test_a_socket_with_a_token_that_is_none_is_told_so(address: Address) -> None:
    async with connect(address.websocket, subprotocols=PROTOCOL) as socket:
        await send(socket, init("nonsense"))
        assert await closed(socket) == (4403, "The API token is not valid: it is mistyped, revoked or expired.")


async def test_nothing_runs_before_the_token(address: Address) -> None:
    async with connect(address.websocket, subprotocols=PROTOCOL) as socket:
        await send(socket, subscribe("{ me }"))
        assert (await closed(socket))[0] == 4401


async def test_a_silent_client_is_dropped(engine: AsyncEngine, hub: Hub) -> None:
    impatient = endpoint(engine, hub, init_timeout=timedelta(milliseconds=50))
    async with serving(application(impatient)) as server:
        address = Address(server.port)
        async with connect(address.websocket, subprotocols=PROTOCOL) as socket:
            assert (await closed(socket))[0] == 4408


@pytest.mark.parametrize("protocols", [None, [Subprotocol("graphql-ws")]])
async def test_other_protocols_are_not_spoken(address: Address, protocols: list[Subprotocol] | None) -> None:
    async with connect(address.websocket, subprotocols=protocols) as socket:
        assert (await closed(socket))[0] == 4406


async def test_another_site_s_page_may_not_connect(address: Address) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(address.websocket, subprotocols=PROTOCOL, origin=Origin("https://evil.example.com"))
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("origin", [ORIGIN, None])
async def test_this_site_and_those_listed_may_connect(address: Address, tenant: Tenant, origin: str | None) -> None:
    origin = origin or f"http://127.0.0.1:{address.port}"
    async with connect(address.websocket, subprotocols=PROTOCOL, origin=Origin(origin)) as socket:
        await send(socket, init(tenant.secret))
        assert await receive(socket) == {"type": "connection_ack"}


MALFORMED = [
    "",
    "{",
    "null",
    "1",
    '"x"',
    "[]",
    "{}",
    "NaN",
    "[" * 100_000,
    '{"type": null}',
    '{"type": ["subscribe"]}',
    '{"type": "' + "x" * 500 + '"}',
    '{"type": "ping", "payload": "x"}',
    '{"type": "complete"}',
    '{"type": "complete", "id": {}}',
    '{"type": "subscribe", "id": {}, "payload": {"query": "{ me }"}}',
    '{"type": "subscribe", "id": "", "payload": {"query": "{ me }"}}',
    '{"type": "subscribe", "id": "1"}',
    '{"type": "subscribe", "id": "1", "payload": "{ me }"}',
    '{"type": "subscribe", "id": "1", "payload": {}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": 1}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ me }", "variables": []}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ me }", "operationName": 1}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ me }", "extensions": 1}}',
    '{"type": "subscribe", "id": "1", "payload": {"query": "{ me }", "variables": {"a": "\\ud800"}}}',
    b"\x00\x01",
]


@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: repr(message[:70]))
async def test_a_malformed_message_closes_the_socket_properly(
    address: Address, tenant: Tenant, message: str | bytes
) -> None:
    async with acknowledged(address, tenant) as socket:
        await socket.send(message)
        assert (await closed(socket))[0] == 4400


async def test_a_connection_init_of_the_wrong_shape_is_refused(address: Address) -> None:
    payloads: list[Any] = ["x", 1, []]
    for payload in payloads:
        async with connect(address.websocket, subprotocols=PROTOCOL) as socket:
            await send(socket, {"type": "connection_init", "payload": payload})
            assert (await closed(socket))[0] == 4400


async def test_a_message_too_large_closes_the_socket(address: Address, tenant: Tenant) -> None:
    async with acknowledged(address, tenant) as socket:
        await socket.send("x" * (1024 * 1024 + 1))
        assert (await closed(socket))[0] == 1009


async def test_a_second_init_and_a_used_id_are_refused(address: Address, tenant: Tenant) -> None:
    async with acknowledged(address, tenant) as socket:
        await send(socket, init(tenant.secret))
        assert (await closed(socket))[0] == 4429
    async with acknowledged(address, tenant) as socket:
        await send(socket, subscribe("subscription { forever }"))
        await send(socket, subscribe("subscription { forever }"))
        assert (await closed(socket))[0] == 4409


async def test_the_subscriptions_of_a_connection_are_bounded(address: Address, tenant: Tenant) -> None:
    async with acknowledged(address, tenant) as socket:
        for number in range(101):
            await send(socket, subscribe("subscription { forever }", str(number)))
        messages = [await receive(socket) for _ in range(101)]
    (refused,) = [message for message in messages if message["type"] == "error"]
    assert refused["id"] == "100"


async def test_an_invalid_document_is_an_error_of_its_operation(address: Address, tenant: Tenant) -> None:
    async with acknowledged(address, tenant) as socket:
        await send(socket, subscribe("subscription { nope }"))
        message = await receive(socket)
        assert (message["type"], message["id"]) == ("error", "1")
        await send(socket, subscribe("{ me }", "2"))
        assert (await receive(socket))["type"] == "next"


@pytest.mark.parametrize("field", ["broken", "invalid"])
async def test_a_fault_in_a_subscription_is_masked(address: Address, tenant: Tenant, field: str) -> None:
    async with acknowledged(address, tenant) as socket:
        await send(socket, subscribe(f"subscription {{ {field} }}"))
        assert (await receive(socket))["payload"] == {"data": {field: 1}}
        text = json.dumps(await receive(socket))
    assert "Error id" in text
    assert SECRET_DETAIL not in text


async def test_ping_is_answered_and_complete_ends_an_operation(address: Address, tenant: Tenant, hub: Hub) -> None:
    await nobody_reads(hub)
    query = f'subscription {{ wakes(accountId: "{tenant.account_id}") }}'
    async with acknowledged(address, tenant) as socket:
        await send(socket, {"type": "ping"})
        assert await receive(socket) == {"type": "pong"}
        await send(socket, subscribe(query))
        assert (await receive(socket))["type"] == "next"
        assert hub.readers == 1
        await send(socket, {"type": "complete", "id": "1"})
        await send(socket, {"type": "ping"})
        assert await receive(socket) == {"type": "pong"}
        await nobody_reads(hub)


async def test_a_dropped_socket_is_cleaned_up(address: Address, tenant: Tenant, hub: Hub) -> None:
    async with acknowledged(address, tenant) as socket:
        await send(socket, subscribe(f'subscription {{ wakes(accountId: "{tenant.account_id}") }}'))
        assert (await receive(socket))["type"] == "next"
        socket.transport.abort()
    await nobody_reads(hub)


@pytest.mark.parametrize("moment", ["revoked_at", "expires_at"])
async def test_a_token_that_ends_closes_its_sockets(
    engine: AsyncEngine, hub: Hub, tenant: Tenant, owner: Owner, moment: str
) -> None:
    watchful = endpoint(engine, hub, seconds_between_token_checks=0.05)
    async with serving(application(watchful)) as server, acknowledged(Address(server.port), tenant) as socket:
        await send(socket, subscribe("subscription { forever }"))
        assert (await receive(socket))["type"] == "next"
        await owner.execute(f"UPDATE api_token SET {moment} = now() WHERE id = $1", tenant.token_id)
        expected = "The API token is no longer valid: it was revoked or has expired."
        assert await closed(socket) == (4403, expected)


async def test_the_server_stops_in_time_with_subscriptions_open(
    engine: AsyncEngine, hub: Hub, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(application(endpoint(engine, hub))) as server:
        address = Address(server.port)
        async with acknowledged(address, tenant) as socket:
            await send(socket, subscribe("subscription { forever }"))
            assert (await receive(socket))["type"] == "next"
            started = time.monotonic()
            server.should_exit = True
            assert (await closed(socket))[0] == 1012
    assert time.monotonic() - started < 5
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"query": "{"}, "Syntax Error: Expected Name, found <EOF>."),
        (
            {"query": "{ me " + "me " * 3000 + "}"},
            "Syntax Error: Document contains more than 3000 tokens. Parsing aborted.",
        ),
        ({"query": "{ me }", "operationName": "Z"}, 'Unknown operation named "Z".'),
        ({"query": "subscription A { forever }", "operationName": "B"}, 'Unknown operation named "B".'),
        ({"query": "query A { me } query B { me }", "operationName": ""}, 'Unknown operation named "".'),
        (
            {"query": "fragment F on Query { me }"},
            "The document has fragments and no operation: add the query, mutation or subscription.",
        ),
    ],
    ids=range(6),
)
async def test_what_is_no_operation_is_an_error(
    address: Address, tenant: Tenant, payload: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with acknowledged(address, tenant) as socket:
        await send(socket, {"type": "subscribe", "id": "1", "payload": payload})
        answer = await receive(socket)
        assert (answer["type"], answer["id"]) == ("error", "1")
        [error] = answer["payload"]
        assert (error["message"], error["extensions"]) == (message, {"code": "VALIDATION"})
        # The socket is of use as before.
        await send(socket, subscribe("{ me }", "2"))
        assert (await receive(socket))["payload"] == {"data": {"me": "admin"}}
    assert caplog.records == []
