"""The reader: whose rows it sees, that it only reads, and that it outlives its connections."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from server.graphql.errors import ErrorCode, describe_fault
from server.planner import reader as module
from server.planner.reader import Reader
from tests.server.planner.world import World
from tests.server.tunnel import tunnel

NAMES = "select convert_to(json_agg(name order by name)::text, 'UTF8') from tenancy"


@pytest.fixture
async def single(world: World) -> AsyncIterator[Reader]:
    """A reader with one connection."""
    reader = Reader(world.dsn, pool_size=1)
    await reader.open()
    yield reader
    await reader.close()


async def names(reader: Reader, tenancy: Any) -> Any:
    value = await reader.fetch(tenancy, NAMES)
    assert isinstance(value, bytes)
    return json.loads(value)


async def test_a_connection_serves_one_tenancy_after_another(
    single: Reader, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[object] = []
    execute = module._Connection.execute

    async def counted(self: Any, sql: str, *args: Any) -> Any:
        entered.append(args[0])
        return await execute(self, sql, *args)

    monkeypatch.setattr(module._Connection, "execute", counted)
    ours, theirs = world.ours.tenancy, world.theirs.tenancy
    for tenancy, name in ((ours, "ours"), (ours, "ours"), (theirs, "theirs"), (theirs, "theirs"), (ours, "ours")):
        [found] = await names(single, tenancy)
        assert found.startswith(name)
    assert entered == [str(ours), str(theirs), str(ours)]


async def test_a_failed_statement_leaves_the_connection_of_use(single: Reader, world: World) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await single.fetch(world.ours.tenancy, "select 1 / $1::int", [0])
    assert len(await names(single, world.theirs.tenancy)) == 1


async def test_it_only_reads(single: Reader, world: World) -> None:
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await single.fetch(world.ours.tenancy, "delete from tag")


async def test_a_connection_that_was_lost_is_replaced(single: Reader, world: World) -> None:
    tenancy = world.ours.tenancy
    process = "select convert_to(pg_backend_pid()::text, 'UTF8')"
    before = await single.fetch(tenancy, process)
    assert before is not None
    other = await asyncpg.connect(world.dsn)
    try:
        await other.execute("select pg_terminate_backend($1)", int(before))
    finally:
        await other.close()
    # Row-level security is open again on the new one.
    assert len(await names(single, tenancy)) == 1
    assert await single.fetch(tenancy, process) not in (None, before)


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
        await Reader("postgresql://nobody@127.0.0.1:1/none").open()


async def test_a_silent_database_is_given_up_and_read_again_over_a_new_connection(world: World) -> None:
    async with tunnel(world.dsn) as database:
        reader = Reader(database.url, pool_size=2, command_seconds=0.2)
        await reader.open()
        tenancy = world.ours.tenancy
        process = "select convert_to(pg_backend_pid()::text, 'UTF8')"
        before = await reader.fetch(tenancy, process)
        database.freeze()
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            await reader.fetch(tenancy, process)
        assert time.monotonic() - started < 2
        assert describe_fault(caught.value)[0] is ErrorCode.UNAVAILABLE
        database.thaw()
        assert await reader.fetch(tenancy, process) not in (None, before)
        await reader.close()
