"""The reader: whose rows it sees, that it only reads, and that it outlives its connections."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID, uuid4

import asyncpg
import pytest

from server.graphql.errors import ErrorCode, describe_fault
from server.outages import is_away
from server.planner import reader as module
from server.planner.reader import Reader
from tests.server.planner.world import World
from tests.server.tunnel import tunnel
from tests.server.waiting import until

NAMES = "select convert_to(json_agg(name order by name)::text, 'UTF8') from tenancy"
SLEEP = "select convert_to('', 'UTF8') from pg_sleep(30)"


@pytest.fixture
async def single(world: World) -> AsyncIterator[Reader]:
    """A reader with one connection."""
    reader = Reader(world.dsn, pool_size=1)
    yield reader
    await reader.close()


async def names(reader: Reader, tenancy: Any) -> Any:
    value = await reader.fetch(tenancy, NAMES)
    assert isinstance(value, bytes)
    return json.loads(value)


async def process(reader: Reader, tenancy: UUID) -> bytes | None:
    """The backend that answers."""
    return await reader.fetch(tenancy, "select convert_to(pg_backend_pid()::text, 'UTF8')")


async def backends(world: World) -> set[int]:
    """The readers' connections, of this test and of others."""
    query = "select array_agg(pid) from pg_stat_activity where application_name = 'freehold-reader'"
    return set(await world.owner.fetchval(query) or ())


async def until_ended(world: World, others: set[int]) -> None:
    """Wait until the readers have no connections but those."""

    async def none_is_left() -> bool:
        return await backends(world) <= others

    await until(none_is_left)


async def until_asleep(world: World, statements: int) -> None:
    """Wait until so many statements sleep in PostgreSQL; only their own role sees that."""
    other = await asyncpg.connect(world.dsn)
    query = "select count(*) = $1 from pg_stat_activity where wait_event = 'PgSleep'"
    try:
        await until(lambda: other.fetchval(query, statements))
    finally:
        await other.close()


async def test_a_connection_serves_one_tenancy_after_another(
    single: Reader, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[object] = []
    execute = asyncpg.Connection.execute

    async def counted(self: Any, sql: str, *args: Any) -> Any:
        entered.append(args[0])
        return await execute(self, sql, *args)

    monkeypatch.setattr(asyncpg.Connection, "execute", counted)
    ours, theirs = world.ours.tenancy, world.theirs.tenancy
    for tenancy, name in ((ours, "ours"), (ours, "ours"), (theirs, "theirs"), (theirs, "theirs"), (ours, "ours")):
        [found] = await names(single, tenancy)
        assert found.startswith(name)
    assert entered == [str(ours), str(theirs), str(ours)]


async def test_each_tenancy_finds_its_own_connection_again(world: World) -> None:
    reader = Reader(world.dsn, pool_size=2)
    tenancies = (world.ours.tenancy, world.theirs.tenancy)
    try:
        # Both at once, so that there are two connections.
        sleeping = [asyncio.create_task(reader.fetch(tenancy, SLEEP)) for tenancy in tenancies]
        await until_asleep(world, 2)
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
    assert len(await names(single, world.ours.tenancy)) == 1


async def test_a_statement_that_is_cancelled_leaves_the_connection_of_use(single: Reader, world: World) -> None:
    task = asyncio.create_task(single.fetch(world.ours.tenancy, SLEEP))
    await until_asleep(world, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await names(single, world.ours.tenancy)) == 1


@pytest.mark.parametrize("step", ["prepare", "execute"])
async def test_no_command_is_left_open_by_who_gives_up(
    single: Reader, world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """asyncpg ends a command with its execution; what gives up before would leave PostgreSQL's clock for it running."""
    original = getattr(asyncpg.Connection, step)

    async def and_then_give_up(self: Any, *args: Any) -> Any:
        await original(self, *args)
        task.cancel()
        await asyncio.sleep(0)

    other = await asyncpg.connect(world.dsn)
    try:
        monkeypatch.setattr(asyncpg.Connection, step, and_then_give_up)
        task = asyncio.create_task(single.fetch(world.ours.tenancy, "select convert_to('never asked', 'UTF8')"))
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.undo()
        left = "select count(*) from pg_stat_activity where application_name = 'freehold-reader' and state <> 'idle'"

        async def nothing_is_left() -> bool:
            return not await other.fetchval(left)

        await until(nothing_is_left)
        assert len(await names(single, world.ours.tenancy)) == 1
    finally:
        await other.close()


def is_closed(error: object) -> bool:
    return isinstance(error, asyncpg.InterfaceError) and is_away(error) and str(error) == "The reader is closed."


async def test_closing_fails_whatever_is_under_way_waits_or_comes_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = await backends(world)
    reader = Reader(world.dsn, pool_size=2)
    tasks = [asyncio.create_task(reader.fetch(world.ours.tenancy, SLEEP)) for _ in range(5)]
    await until_asleep(world, 2)
    connect = AsyncMock()
    monkeypatch.setattr(asyncpg, "connect", connect)
    async with asyncio.timeout(5):
        await reader.close()
        failures = await asyncio.gather(*tasks, process(reader, world.ours.tenancy), return_exceptions=True)
    assert all(map(is_closed, failures)), failures
    connect.assert_not_called()

    await until_ended(world, others)


async def test_closing_ends_what_connects(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    connects, connecting = asyncpg.connect, asyncio.Event()

    async def announced(*args: Any, **options: Any) -> Any:
        connecting.set()
        return await connects(*args, **options)

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
    other = await asyncpg.connect(world.dsn)
    try:
        for _ in range(3):
            before = await asyncio.gather(*(reader.fetch(world.ours.tenancy, slow) for _ in range(4)))
            await other.execute(
                "select pg_terminate_backend(pid::int) from unnest($1::text[]) pid",
                [each.decode() for each in before if each],
            )
            after = await asyncio.gather(*(reader.fetch(world.ours.tenancy, slow) for _ in range(12)))
            assert len(set(after)) <= 4
            assert not set(after) & set(before)
    finally:
        await other.close()
        await reader.close()


async def test_what_is_kept_prepared_is_bounded(single: Reader, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_PREPARED", 1000)
    for number in range(50):
        sql = f"select convert_to('{number}', 'UTF8') /* {'x' * 100} */"
        assert await single.fetch(world.ours.tenancy, sql) == str(number).encode()
    held = await single.fetch(
        world.ours.tenancy, "select convert_to(count(*)::text, 'UTF8') from pg_prepared_statements"
    )
    assert held is not None
    assert int(held) <= 1000 / 130 + 3
    # What is too long to be kept is read all the same.
    assert await single.fetch(world.ours.tenancy, f"select convert_to('long', 'UTF8') /* {'x' * 1000} */") == b"long"


async def test_a_failed_statement_leaves_the_connection_of_use(single: Reader, world: World) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await single.fetch(world.ours.tenancy, "select 1 / $1::int", [0])
    assert len(await names(single, world.theirs.tenancy)) == 1


async def test_it_only_reads(single: Reader, world: World) -> None:
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await single.fetch(world.ours.tenancy, "delete from tag")


async def test_a_connection_that_was_lost_is_replaced(single: Reader, world: World) -> None:
    tenancy = world.ours.tenancy
    before = await process(single, tenancy)
    assert before is not None
    other = await asyncpg.connect(world.dsn)
    try:
        await other.execute("select pg_terminate_backend($1)", int(before))
    finally:
        await other.close()
    # Row-level security is open again on the new one.
    assert len(await names(single, tenancy)) == 1
    assert await process(single, tenancy) not in (None, before)


async def test_a_statement_that_ends_its_connection_is_tried_twice(single: Reader, world: World) -> None:
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await single.fetch(world.ours.tenancy, "select pg_terminate_backend(pg_backend_pid())")
    assert len(await names(single, world.ours.tenancy)) == 1


async def test_a_statement_whose_table_has_changed_is_prepared_again(single: Reader, world: World) -> None:
    sql = "select convert_to(to_json(t)::text, 'UTF8') from changing t"
    owner = world.owner
    await owner.execute(
        "create table changing (a int); insert into changing values (1); grant select on changing to public"
    )
    try:
        assert await single.fetch(world.ours.tenancy, sql) == b'{"a":1}'
        await owner.execute("alter table changing add column b int; update changing set b = 2")
        assert await single.fetch(world.ours.tenancy, sql) == b'{"a":1,"b":2}'
    finally:
        await owner.execute("drop table changing")


async def test_nobody_answers() -> None:
    with pytest.raises(OSError, match=r"Connect|refused"):
        await Reader("postgresql://nobody@127.0.0.1:1/none").fetch(uuid4(), NAMES)


async def test_a_silent_database_is_given_up_and_read_again_over_a_new_connection(world: World) -> None:
    async with tunnel(world.dsn) as database:
        reader = Reader(database.url, pool_size=2, command_seconds=0.2)
        tenancy = world.ours.tenancy
        before = await process(reader, tenancy)
        database.freeze()
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            await process(reader, tenancy)
        assert time.monotonic() - started < 2
        assert describe_fault(caught.value)[0] is ErrorCode.UNAVAILABLE
        database.thaw()
        assert await process(reader, tenancy) not in (None, before)
        await reader.close()
