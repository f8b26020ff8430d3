"""Events that were there before they had positions or tags, and those that an older revision cannot hold."""

from alembic import command
from sqlalchemy import Connection

from server.config import Settings
from server.migrate import alembic_config, migrate
from tests.migrations.arrange import ACCOUNTS, TENANCY, TYPES, as_worker, on_owner, upgrade_to

# The clock was put back between the two events of the account `a`.
EVENTS = """
    INSERT INTO event (account_id, sequence, tenancy_id, account, setup, at)
    SELECT account.id, sequence, tenancy_id, '{}', '{}', at::timestamptz FROM account JOIN (
        VALUES ('a', 1, '2026-01-03Z'), ('a', 2, '2026-01-01Z'), ('b', 1, '2026-01-02Z'), ('b', 2, '2026-01-04Z')
    ) written (name, sequence, at) ON written.name = account.name
"""
AFTERWARDS = """
    INSERT INTO event (account_id, sequence, tenancy_id, account, setup)
    SELECT id, 1, tenancy_id, '{}', null FROM account WHERE name = 'c'
"""
TAGS = """
    INSERT INTO tag (tenancy_id, account_id, key, value)
    SELECT tenancy_id, id, key, value FROM account, (VALUES ('team', 'x'), ('stage', 'y')) given (key, value)
    WHERE name IN ('b', 'c')
"""
EVENT_TAGS = "SELECT account.name, tags::text FROM event JOIN account ON account.id = account_id ORDER BY position"
EVENTS_IN_ORDER = """
    SELECT account.name, sequence, position FROM event JOIN account ON account.id = account_id ORDER BY position
"""


async def test_events_of_before_get_positions_in_their_order(empty: Settings, migrated: Settings) -> None:
    await on_owner(empty, lambda connection: connection.run_sync(upgrade_to, "0008"))
    async with as_worker(empty) as worker:
        await worker.execute(TENANCY)
        await worker.execute(TYPES)
        await worker.execute(ACCOUNTS, ["a", "b", "c"], "full")
        await worker.execute(EVENTS)
        await worker.execute(TAGS)
    await migrate(empty)
    async with as_worker(empty) as worker:
        await worker.execute(AFTERWARDS)
        found = [tuple(row) for row in await worker.fetch(EVENTS_IN_ORDER)]
        assert found == [("b", 1, 1), ("a", 1, 2), ("a", 2, 3), ("b", 2, 4), ("c", 1, 5)]
        tags = '[{"key": "stage", "value": "y"}, {"key": "team", "value": "x"}]'
        found = [tuple(row) for row in await worker.fetch(EVENT_TAGS)]
        assert found == [("b", tags), ("a", "[]"), ("a", "[]"), ("b", tags), ("c", tags)]

    def down(connection: Connection) -> None:
        command.downgrade(alembic_config(connection), "0008")

    await on_owner(empty, lambda connection: connection.run_sync(down))
    async with as_worker(empty) as worker:
        assert await worker.fetchval("SELECT count(*) FROM event") == 4
    await migrate(empty)
