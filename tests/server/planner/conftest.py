from collections.abc import AsyncIterator

import asyncpg
import pytest

from server.embedded import Services
from server.migrate import migrate
from server.planner.reader import Reader
from tests.conftest import new_database
from tests.server.planner.reference import Reference
from tests.server.planner.world import CountingReader, Side, World, make


@pytest.fixture(scope="session")
async def world(services: Services) -> AsyncIterator[World]:
    """A database of its own: what these tests expect of lists is all that there is."""
    settings = await new_database(services)
    await migrate(settings)
    # As the server's role, under row-level security.
    reader = CountingReader(settings.require("database_url"))
    uncounted = Reader(settings.require("database_url"))
    owner = await asyncpg.connect(settings.require("owner_database_url"))
    try:
        yield await make(owner, reader, uncounted, settings.require("database_url"))
    finally:
        await owner.close()
        await reader.close()
        await uncounted.close()


@pytest.fixture
async def single(world: World) -> AsyncIterator[Reader]:
    """A reader with one connection."""
    reader = Reader(world.dsn, pool_size=1)
    yield reader
    await reader.close()


@pytest.fixture(scope="session")
async def reference(world: World) -> Reference:
    """What our side has to answer, by other means."""
    return await Reference.load(world.owner, world.ours.tenancy, world.ours.token)


@pytest.fixture(scope="session")
def ours(world: World) -> Side:
    return world.ours


@pytest.fixture(scope="session")
def theirs(world: World) -> Side:
    return world.theirs
