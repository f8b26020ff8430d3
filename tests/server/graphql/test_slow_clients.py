"""A client that does not read what it is sent: it is told and closed, and nobody else waits for it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from server import sockets
from tests.server.fixtures import Owner, Tenant, write_event
from tests.server.graphql.groups import QUERY, Served, connected, follow, joined, numbers, receive
from tests.server.waiting import until

LARGE = QUERY.replace("sequence", "sequence account { name }")
OF_TENANCY = "subscription($after: Int) { accountsChanged(after: $after) { sequence account { name } } }"


async def write_large_event(owner: Owner, tenant: Tenant) -> None:
    """An event that fills the buffers of the kernel soon."""
    await owner.execute("UPDATE account SET name = repeat('x', 200000) WHERE id = $1", tenant.account_id)
    await write_event(owner, tenant)


@asynccontextmanager
async def not_reading(served: Served, tenant: Tenant, query: str = LARGE) -> AsyncIterator[ClientConnection]:
    """A real client that follows the account and takes no more than a few messages until it is asked for the next."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", served.server.port))
    raw.setblocking(False)
    async with connected(served, tenant.secret, sock=raw, max_queue=1, max_size=None, close_timeout=0.1) as client:
        await follow(client, tenant, query=query)
        yield client


async def until_given_up(
    served: Served, owner: Owner, tenant: Tenant, client: ClientConnection, query: str = LARGE
) -> int:
    """Write events until one follower of two is left; returns how many the other has got."""
    await follow(client, tenant, query=query)
    await joined(served, 1, 2)
    [group] = served.endpoint.groups
    for number in range(1, 100):
        await write_large_event(owner, tenant)
        assert await numbers(client, 1) == [number]
        if group.live == 1:
            return number
    raise AssertionError("nobody was given up")


async def read_all(client: ClientConnection, into: list[int]) -> None:
    while True:
        into += await numbers(client, 1)


@pytest.mark.parametrize(
    ("limit", "value", "query"),
    [("MOST_BYTES", 1024 * 1024, LARGE), ("MOST_MESSAGES", 3, LARGE), ("MOST_MESSAGES", 3, OF_TENANCY)],
)
async def test_it_is_closed_and_goes_on_after_its_last_event(
    served: Served, tenant: Tenant, owner: Owner, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, query: str
) -> None:
    monkeypatch.setattr(sockets, limit, value)
    async with connected(served, tenant.secret) as client, not_reading(served, tenant, query) as slow:
        last = await until_given_up(served, owner, tenant, client, query)
        got: list[int] = []
        with pytest.raises(ConnectionClosed) as caught:
            await read_all(slow, got)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (sockets.TOO_SLOW, sockets.TOO_SLOW_REASON)
        assert got == list(range(1, len(got) + 1))
        assert 0 < len(got) < last
        async with connected(served, tenant.secret) as again:
            await follow(again, tenant, got[-1], query=query)
            assert await numbers(again, last - len(got)) == list(range(len(got) + 1, last + 1))


async def test_a_client_that_does_not_come_to_a_ping_is_too_slow_and_not_broken(
    served: Served, tenant: Tenant, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MOST_BYTES", 1024**3)
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", 60)
    served.server.config.ws_ping_interval = served.server.config.ws_ping_timeout = 0.5
    async with not_reading(served, tenant) as slow:
        await joined(served, 1, 1)
        # More than the kernels hold.
        for _ in range(40):
            await write_large_event(owner, tenant)
        await joined(served, 0, 0)
        got: list[int] = []
        with pytest.raises(ConnectionClosed) as caught:
            await read_all(slow, got)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == sockets.TOO_SLOW
    assert got == list(range(1, len(got) + 1))


async def test_a_client_that_never_reads_is_cut_off(
    served: Served, tenant: Tenant, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", 0.1)

    async def one_connection() -> bool:
        return len(served.server.server_state.connections) == 1

    async with connected(served, tenant.secret) as client, not_reading(served, tenant):
        await until_given_up(served, owner, tenant, client)
        await until(one_connection)
        await write_large_event(owner, tenant)
        await receive(client)


async def test_a_slow_client_that_catches_up_is_waited_for(served: Served, tenant: Tenant, owner: Owner) -> None:
    for _ in range(40):
        await write_large_event(owner, tenant)
    async with not_reading(served, tenant) as slow, connected(served, tenant.secret) as client:
        await follow(client, tenant, 40, query=LARGE)
        await joined(served, 1, 1)
        await write_large_event(owner, tenant)
        await receive(client)
        assert await asyncio.wait_for(numbers(slow, 41), 10) == list(range(1, 42))


async def test_a_client_that_goes_away_while_it_catches_up_is_forgotten(
    served: Served, tenant: Tenant, owner: Owner
) -> None:
    for _ in range(40):
        await write_large_event(owner, tenant)
    async with not_reading(served, tenant) as slow:
        await receive(slow)
        # The server waits for it to take more.
        slow.transport.abort()
        await joined(served, 0, 0)
