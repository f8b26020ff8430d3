"""Databases at an older revision, and what is in them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg
from alembic import command
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from server.config import Settings
from server.database import create_engine
from server.migrate import alembic_config
from tests.server.fixtures import Owner

T = TypeVar("T")

TENANCY = """
    INSERT INTO tenancy (name, state, home_region, regions, email_template, security_contact_name,
    security_contact_email, security_contact_phone) VALUES ('t', 'ACTIVE', 'r', '{}', 'e', 'n', 'e', 'p')
"""
TYPES = """
    INSERT INTO account_type (tenancy_id, name, foundation)
    SELECT id, kind, false FROM tenancy, unnest('{full,empty}'::text[]) kind
"""
# An account for each name in $1 of the type in $2.
ACCOUNTS = """
    INSERT INTO account (tenancy_id, name, email, role, origin, status, account_type_id, created_by_kind,
    created_by_name) SELECT tenancy_id, n, n, 'MEMBER', 'CREATED', 'ACTIVE', id, 'SYSTEM', 't'
    FROM account_type, unnest($1::text[]) n WHERE account_type.name = $2
"""


async def on_owner(settings: Settings, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    engine = create_engine(settings.require("owner_database_url"))
    try:
        async with engine.begin() as connection:
            return await work(connection)
    finally:
        await engine.dispose()


def upgrade_to(connection: Connection, revision: str) -> None:
    command.upgrade(alembic_config(connection), revision)


@asynccontextmanager
async def as_worker(settings: Settings) -> AsyncIterator[Owner]:
    """A connection that sees every row, whatever the owner may see."""
    connection: Owner = await asyncpg.connect(settings.require("worker_database_url"))
    try:
        yield connection
    finally:
        await connection.close()


async def make_uncounted(settings: Settings) -> None:
    """Three accounts of the type `full` and none of `empty`, in an empty database, at the revision before counters."""
    await on_owner(settings, lambda connection: connection.run_sync(upgrade_to, "0003"))
    async with as_worker(settings) as worker:
        await worker.execute(TENANCY)
        await worker.execute(TYPES)
        await worker.execute(ACCOUNTS, ["a", "b", "c"], "full")


async def counts(settings: Settings) -> dict[str, int]:
    """The counter of each type."""
    async with as_worker(settings) as worker:
        return dict(await worker.fetch("SELECT name, account_count FROM account_type"))


async def is_waited_for(observer: Owner) -> bool:
    """Whether somebody waits for a lock on a table of the observer's database."""
    waits = "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database WHERE NOT granted"
    return bool(await observer.fetchval(f"{waits} AND datname = current_database())"))
