"""Cancelled accounts, which an older revision cannot hold."""

from alembic import command
from sqlalchemy import Connection

from server.config import Settings
from server.migrate import alembic_config, migrate
from tests.migrations.arrange import ACCOUNTS, TENANCY, TYPES, as_worker, counts, on_owner

POINTING = """
    INSERT INTO setup (tenancy_id, account_id, kind, status)
    SELECT tenancy_id, id, 'CREATE', 'CANCELLED' FROM account WHERE status = 'CANCELLED';
    INSERT INTO stage (setup_id, position, tenancy_id, name, title, controls, status)
    SELECT id, 1, tenancy_id, 'n', 't', '[]', 'CANCELLED' FROM setup;
    INSERT INTO event (account_id, sequence, tenancy_id, account, setup)
    SELECT id, 1, tenancy_id, '{}', '{}' FROM account;
    INSERT INTO tag (account_id, key, tenancy_id, value) SELECT id, 'k', tenancy_id, 'v' FROM account;
    INSERT INTO idempotency_key (tenancy_id, key, mutation, digest, account_id)
    SELECT tenancy_id, id::text, 'm', '', id FROM account;
"""


async def test_going_back_forgets_them_and_what_points_at_them(empty: Settings, migrated: Settings) -> None:
    await migrate(empty)
    async with as_worker(empty) as worker:
        await worker.execute(TENANCY)
        await worker.execute(TYPES)
        for name in ("again", "other"):
            await worker.execute(ACCOUNTS, [name], "full")
        await worker.execute("UPDATE account SET status = 'CANCELLED' WHERE name = 'again'")
        await worker.execute(ACCOUNTS, ["again"], "full")
        await worker.execute(POINTING)

    def down(connection: Connection) -> None:
        command.downgrade(alembic_config(connection), "0006")

    await on_owner(empty, lambda connection: connection.run_sync(down))
    assert await counts(empty) == {"full": 2, "empty": 0}
    async with as_worker(empty) as worker:
        assert [row[0] for row in await worker.fetch("SELECT name FROM account ORDER BY 1")] == ["again", "other"]
        for table, number in (("setup", 0), ("stage", 0), ("event", 2), ("tag", 2), ("idempotency_key", 2)):
            assert await worker.fetchval(f"SELECT count(*) FROM {table}") == number, table
    await migrate(empty)
