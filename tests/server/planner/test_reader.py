"""The reader: whose rows it sees, that it only reads, and that it outlives its connections."""

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from server.graphql.errors import ErrorCode, describe_fault
from server.planner import reader as module
from server.planner.reader import Reader
from tests.server.planner.backends import SLEEP, process, terminate, until_asleep
from tests.server.planner.world import World
from tests.server.tunnel import tunnel
from tests.server.waiting import until

NAMES = "select convert_to(json_agg(name order by name)::text, 'UTF8') from tenancy"


async def names(reader: Reader, tenancy: Any) -> Any:
    value = await reader.fetch(tenancy, NAMES)
    assert isinstance(value, bytes)
    return json.loads(value)


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


async def test_a_statement_that_is_cancelled_leaves_the_connection_of_use(single: Reader, world: World) -> None:
    task = asyncio.create_task(single.fetch(world.ours.tenancy, SLEEP))
    await until_asleep(world.dsn, 1)
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
    await terminate(world.dsn, before)
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
