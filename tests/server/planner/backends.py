"""What a reader's connections look like from PostgreSQL's side."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from server.planner.reader import Reader
from tests.server.fixtures import Owner
from tests.server.planner.world import World
from tests.server.waiting import until

SLEEP = "select convert_to('', 'UTF8') from pg_sleep(30)"


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


@asynccontextmanager
async def another(dsn: str) -> AsyncIterator[Owner]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def until_asleep(dsn: str, statements: int) -> None:
    """Wait until so many statements sleep in PostgreSQL; only their role, or who has it, sees that."""
    query = "select count(*) = $1 from pg_stat_activity where wait_event = 'PgSleep'"
    async with another(dsn) as other:
        await until(lambda: other.fetchval(query, statements))


async def terminate(dsn: str, *processes: bytes | None) -> None:
    """End backends of the role of `dsn`, or of one that it has."""
    async with another(dsn) as other:
        await other.execute(
            "select pg_terminate_backend(pid::int) from unnest($1::text[]) pid",
            [each.decode() for each in processes if each],
        )
