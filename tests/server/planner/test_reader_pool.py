"""The reader's connections: who has them and when, what becomes of them when it is closed, and too few of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock, Mock
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from server.outages import is_away
from server.planner import reader as module
from server.planner.reader import POOL_SIZE, Reader
from tests.server.planner.backends import SLEEP, backends, process, terminate, until_asleep, until_ended
from tests.server.planner.world import World
from tests.server.tunnel import tunnel


async def limit_to(world: World, connections: int) -> None:
    await world.owner.execute(f"alter role few connection limit {connections}")


@pytest.fixture
async def few(world: World) -> AsyncIterator[str]:
    """The database for a role like the server's that may have three connections."""
    await world.owner.execute("create role few login password 'few' connection limit 3 in role freehold_app")
    await world.owner.execute("create role watcher login password 'few' in role few")
    yield as_user(world, "few")
    await world.owner.execute("drop role few, watcher")


def as_user(world: World, name: str) -> str:
    parts = urlsplit(world.dsn)
    return urlunsplit(parts._replace(netloc=f"{name}:few@{parts.netloc.rpartition('@')[2]}"))


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Counts the connections that are tried."""
    spy = AsyncMock(side_effect=asyncpg.connect)
    monkeypatch.setattr(asyncpg, "connect", spy)
    return spy


async def test_each_tenancy_finds_its_own_connection_again(world: World) -> None:
    reader = Reader(world.dsn, pool_size=2)
    tenancies = (world.ours.tenancy, world.theirs.tenancy)
    try:
        # Both at once, so that there are two connections.
        sleeping = [asyncio.create_task(reader.fetch(tenancy, SLEEP)) for tenancy in tenancies]
        await until_asleep(world.dsn, 2)
        for task in sleeping:
            task.cancel()
        await asyncio.gather(*sleeping, return_exceptions=True)
        first = [await process(reader, tenancy) for tenancy in tenancies]
        assert len(set(first)) == 2
        for _ in range(3):
            for tenancy, expected in zip(tenancies, first, strict=True):
                assert await process(reader, tenancy) == expected
    finally:
        await reader.close()


async def test_more_readers_than_connections_take_turns(world: World) -> None:
    reader = Reader(world.dsn, pool_size=3)
    slow = "select convert_to(pg_backend_pid()::text, 'UTF8') from pg_sleep(0.02)"
    try:
        found = await asyncio.gather(*(reader.fetch(world.ours.tenancy, slow) for _ in range(20)))
        assert len(set(found)) == 3
    finally:
        await reader.close()


async def test_who_gives_up_waiting_leaves_the_connection_to_others(single: Reader, world: World) -> None:
    slow = "select convert_to('done', 'UTF8') from pg_sleep(0.2)"
    working = asyncio.create_task(single.fetch(world.ours.tenancy, slow))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(process(single, world.ours.tenancy)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[2].cancel()
    assert await working == b"done"
    # At the moment at which the connection is handed over.
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await process(single, world.ours.tenancy)


def is_closed(error: object) -> bool:
    return isinstance(error, asyncpg.InterfaceError) and is_away(error) and str(error) == "The reader is closed."


async def test_closing_fails_whatever_is_under_way_waits_or_comes_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = await backends(world)
    reader = Reader(world.dsn, pool_size=2)
    tasks = [asyncio.create_task(reader.fetch(world.ours.tenancy, SLEEP)) for _ in range(5)]
    await until_asleep(world.dsn, 2)
    connect = AsyncMock()
    monkeypatch.setattr(asyncpg, "connect", connect)
    async with asyncio.timeout(5):
        await reader.close()
        failures = await asyncio.gather(*tasks, process(reader, world.ours.tenancy), return_exceptions=True)
    assert all(map(is_closed, failures)), failures
    connect.assert_not_called()
    await until_ended(world, others)


async def test_closing_ends_what_connects(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, connecting = asyncpg.connect, asyncio.Event()

    async def announced(*args: Any, **options: Any) -> Any:
        connecting.set()
        return await connect(*args, **options)

    monkeypatch.setattr(asyncpg, "connect", announced)
    others = await backends(world)
    async with tunnel(world.dsn) as database:
        reader = Reader(database.url, pool_size=1)
        database.freeze()
        tasks = [asyncio.create_task(process(reader, world.ours.tenancy)) for _ in range(2)]
        await connecting.wait()
        await reader.close()
        database.thaw()
        async with asyncio.timeout(5):
            failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(map(is_closed, failures)), failures
        assert await backends(world) <= others


async def test_closing_at_the_moment_at_which_a_connection_is_handed_over(single: Reader, world: World) -> None:
    others = await backends(world)

    async def read_and_close() -> None:
        await process(single, world.ours.tenancy)
        await single.close()

    working = asyncio.create_task(read_and_close())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(process(single, world.ours.tenancy))
    async with asyncio.timeout(5):
        _, failure = await asyncio.gather(working, waiting, return_exceptions=True)
    assert is_closed(failure), failure
    await until_ended(world, others)


async def test_all_connections_are_lost_at_once(world: World) -> None:
    reader = Reader(world.dsn, pool_size=4)
    slow = "select convert_to(pg_backend_pid()::text, 'UTF8') from pg_sleep(0.02)"
    try:
        for _ in range(3):
            before = await asyncio.gather(*(reader.fetch(world.ours.tenancy, slow) for _ in range(4)))
            await terminate(world.dsn, *before)
            after = await asyncio.gather(*(reader.fetch(world.ours.tenancy, slow) for _ in range(12)))
            assert len(set(after)) <= 4
            assert not set(after) & set(before)
    finally:
        await reader.close()


async def test_readers_take_turns_when_postgresql_has_few_connections(
    world: World, few: str, connects: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROW_SECONDS", 1000)
    reader = Reader(few)
    try:
        for _ in range(10):
            found = await asyncio.gather(*(process(reader, world.ours.tenancy) for _ in range(20)))
            assert 1 <= len(set(found)) <= 3
        assert connects.await_count <= POOL_SIZE
    finally:
        await reader.close()


async def test_readers_that_were_refused_a_connection_keep_their_turn(world: World, few: str) -> None:
    reader = Reader(few, pool_size=3)
    done: list[int] = []

    async def read(number: int) -> None:
        await process(reader, world.ours.tenancy)
        done.append(number)

    await limit_to(world, 1)
    try:
        await asyncio.gather(*map(read, range(20)))
        assert done == list(range(20))
    finally:
        await reader.close()


async def test_the_pool_grows_when_postgresql_has_more_connections_again(
    world: World, few: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROW_SECONDS", 0)
    reader = Reader(few, pool_size=5)
    await limit_to(world, 1)
    try:
        assert len(set(await asyncio.gather(*(process(reader, world.ours.tenancy) for _ in range(20))))) == 1
        await limit_to(world, 5)
        asleep = [asyncio.create_task(reader.fetch(world.ours.tenancy, SLEEP)) for _ in range(5)]
        await until_asleep(as_user(world, "watcher"), 5)
    finally:
        await reader.close()
    await asyncio.gather(*asleep, return_exceptions=True)


async def test_postgresql_has_no_connection_at_all(world: World, few: str, connects: Mock) -> None:
    reader = Reader(few)
    await limit_to(world, 0)
    try:
        async with asyncio.timeout(5):
            failures = await asyncio.gather(
                *(process(reader, world.ours.tenancy) for _ in range(100)), return_exceptions=True
            )
        assert all(isinstance(failure, asyncpg.TooManyConnectionsError) for failure in failures), failures
        assert connects.await_count <= POOL_SIZE
        await limit_to(world, 3)
        assert await process(reader, world.ours.tenancy)
    finally:
        await reader.close()


async def test_a_lost_connection_that_cannot_be_replaced_leaves_the_others(world: World, few: str) -> None:
    reader = Reader(few, pool_size=2)
    tenancy = world.ours.tenancy
    try:
        asleep = [asyncio.create_task(reader.fetch(tenancy, SLEEP)) for _ in range(2)]
        await until_asleep(as_user(world, "watcher"), 2)
        for task in asleep:
            task.cancel()
        await asyncio.gather(*asleep, return_exceptions=True)
        before = await process(reader, tenancy)
        await terminate(as_user(world, "watcher"), before)
        await limit_to(world, 1)
        for _ in range(3):
            assert await process(reader, tenancy) not in (None, before)
    finally:
        await reader.close()
