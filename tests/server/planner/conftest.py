from collections.abc import AsyncIterator

import asyncpg  # type: ignore[import-untyped]
import pytest

from server.config import Settings
from tests.server.fixtures import settings
from tests.server.planner.world import CountingReader, Side, World, make

__all__ = ["settings"]


@pytest.fixture(scope="session")
async def reader(settings: Settings) -> AsyncIterator[CountingReader]:
    """As the server's role, under row-level security."""
    reader = CountingReader(settings.require("database_url"))
    await reader.open()
    yield reader
    await reader.close()


@pytest.fixture(scope="session")
async def world(settings: Settings, reader: CountingReader) -> World:
    owner = await asyncpg.connect(settings.require("owner_database_url"))
    try:
        return await make(owner, reader)
    finally:
        await owner.close()


@pytest.fixture(scope="session")
def ours(world: World) -> Side:
    return world.ours


@pytest.fixture(scope="session")
def theirs(world: World) -> Side:
    return world.theirs
