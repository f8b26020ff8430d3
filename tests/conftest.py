"""What every test may use: PostgreSQL, Valkey and the AWS simulator, each a real process, started once a session."""

import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from server.config import Settings
from server.embedded import Services, directory, embedded
from server.embedded.postgres import OWNER, SUPERUSER
from server.migrate import migrate


@pytest.fixture(scope="session")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    async with embedded(tmp_path_factory.mktemp("services"), fsync=False) as running:
        await let_owner_create_databases(running)
        yield running


async def let_owner_create_databases(services: Services) -> None:
    password = directory.passwords(services.data_dir, [SUPERUSER])[SUPERUSER]
    port = urlsplit(services.owner_url).port
    superuser = await asyncpg.connect(f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres")
    try:
        await superuser.execute(f"ALTER ROLE {OWNER} CREATEDB")
    finally:
        await superuser.close()


async def new_database(services: Services) -> Settings:
    """Settings for a database of its own, empty, on the session's services."""
    name = f"test_{secrets.token_hex(6)}"
    owner = await asyncpg.connect(services.owner_url)
    try:
        await owner.execute(f"CREATE DATABASE {name}")
    finally:
        await owner.close()

    def at(url: str) -> str:
        return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))

    return Settings(
        owner_database_url=at(services.owner_url),
        database_url=at(services.app_url),
        worker_database_url=at(services.worker_url),
        redis_url=services.redis_url,
        aws_endpoint_url=services.aws_endpoint,
        port=1,
    )


@pytest.fixture(scope="session")
async def migrated(services: Services) -> Settings:
    """Settings for a database that every test of the session may share."""
    settings = await new_database(services)
    await migrate(settings)
    return settings


@pytest.fixture
async def empty(services: Services) -> Settings:
    """Settings for an empty database, this test's own."""
    return await new_database(services)
