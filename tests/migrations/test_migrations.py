"""Migrations: from empty to the models, by many processes at once, and back."""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from server.config import Settings
from server.embedded.installation import as_environment
from server.migrate import alembic_config, migrate
from server.models import Base, is_table
from tests.migrations.arrange import counts, on_owner

NEWEST = max(path.name for path in (Path(__file__).parents[2] / "migrations" / "versions").glob("0*.py"))[:4]


def differences(connection: Connection) -> list[object]:
    options = {"compare_server_default": True, "include_object": is_table}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, Base.metadata))


async def test_the_migrations_make_what_the_models_say(empty: Settings) -> None:
    assert await migrate(empty) == NEWEST
    assert await on_owner(empty, lambda connection: connection.run_sync(differences)) == []


async def test_many_processes_may_migrate_at_once(empty: Settings) -> None:
    environment = {**os.environ, **as_environment(empty), "FREEHOLD_OWNER_DATABASE_URL": str(empty.owner_database_url)}
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.cli", "migrate"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in processes:
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert out == f"The database is at revision {NEWEST}.\n".encode()


async def test_accounts_that_were_there_before_their_counters_are_counted(uncounted: Settings) -> None:
    await migrate(uncounted)
    assert await counts(uncounted) == {"full": 3, "empty": 0}


async def test_they_can_be_undone(empty: Settings) -> None:
    await migrate(empty)

    def down(connection: Connection) -> None:
        command.downgrade(alembic_config(connection), "base")

    await on_owner(empty, lambda connection: connection.run_sync(down))
    tables = text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")
    assert await on_owner(empty, lambda connection: connection.scalar(tables)) == 0
    assert await migrate(empty) == NEWEST


async def test_the_app_role_sees_one_tenancy_and_without_one_nothing(migrated: Settings) -> None:
    worker = await asyncpg.connect(migrated.worker_database_url)
    app = await asyncpg.connect(migrated.database_url)
    try:
        tenancies = [
            await worker.fetchval(
                "INSERT INTO tenancy (name, state, home_region, regions, email_template, security_contact_name, "
                "security_contact_email, security_contact_phone) "
                "VALUES ($1, 'ACTIVE', 'us-east-1', '{us-east-1}', 'a+{id}@b.example', 'n', 'e@b.example', '1') "
                "RETURNING id",
                name,
            )
            for name in ("isolation-one", "isolation-two")
        ]
        for tenancy in tenancies:
            await worker.execute(
                "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'Type', false)", tenancy
            )
        seen = "SELECT tenancy_id FROM account_type"
        assert await app.fetch(seen) == []
        await app.execute("SELECT set_config('app.tenancy_id', $1, false)", str(tenancies[0]))
        assert [row[0] for row in await app.fetch(seen)] == [tenancies[0]]
        assert [row[0] for row in await app.fetch("SELECT id FROM tenancy")] == [tenancies[0]]
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await app.execute(
                "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'Other', false)", tenancies[1]
            )
        await app.execute("SELECT set_config('app.tenancy_id', '', false)")
        assert await app.fetch(seen) == []
    finally:
        await app.close()
        await worker.close()
