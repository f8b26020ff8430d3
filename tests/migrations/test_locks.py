"""A migration beside transactions that do not make room for it: it gives way, and tries again."""

import asyncio

import asyncpg
import pytest

from server import migrate as module
from server.config import Settings
from server.errors import FreeholdError
from server.migrate import migrate
from tests.migrations.arrange import ACCOUNTS, as_worker, counts
from tests.migrations.test_migrations import NEWEST
from tests.server.waiting import until

REVISION = "SELECT version_num FROM alembic_version"


async def test_a_table_in_use_is_tried_again(uncounted: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> bool:
        return bool(caplog.messages)

    caplog.set_level("WARNING", logger=module.__name__)
    async with as_worker(uncounted) as worker:
        async with worker.transaction():
            await worker.execute(ACCOUNTS, ["d"], "full")
            migration = asyncio.create_task(migrate(uncounted))
            await until(told)
        assert await migration == NEWEST
        holder = f"process {worker.get_server_pid()} (freehold_worker"
        expected = f"a table that a migration changes is in use, next try in 0.5 s; held by {holder}"
        assert caplog.messages[0].startswith(expected)
    assert await counts(uncounted) == {"full": 4, "empty": 0}


async def test_a_table_that_stays_in_use_is_given_up(uncounted: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (0,))
    owner = await asyncpg.connect(uncounted.require("owner_database_url"))
    try:
        async with as_worker(uncounted) as worker, worker.transaction():
            await worker.execute("SET LOCAL application_name = 'a long report'")
            await worker.execute(ACCOUNTS, ["d"], "full")
            with pytest.raises(FreeholdError) as raised:
                await migrate(uncounted)
            holder = rf"process {worker.get_server_pid()} \(freehold_worker, a long report[^)]*\)"
            assert raised.match(
                r"^a table that the migration after revision 0003 changes was in use at each of 2 tries; "
                rf"held by {holder}\. "
            )
            assert raised.match(r"Run `freehold migrate` again .* SELECT pg_terminate_backend\(")
        assert await owner.fetchval(REVISION) == "0003"
    finally:
        await owner.close()


async def test_a_deadlock_is_tried_again(uncounted: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (0,))
    owner = await asyncpg.connect(uncounted.require("owner_database_url"))
    try:
        # As PostgreSQL says it, once: a sequence goes on whatever is rolled back.
        await owner.execute(
            "CREATE SEQUENCE tries; CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN IF nextval('tries') = 1 THEN RAISE SQLSTATE '40P01'; END IF; RETURN NEW; END$$;"
            " CREATE TRIGGER fail_once BEFORE UPDATE ON account_type FOR EACH ROW EXECUTE FUNCTION fail_once()"
        )
        assert await migrate(uncounted) == NEWEST
        assert await owner.fetchval("SELECT last_value FROM tries") == 2
    finally:
        await owner.close()
    assert await counts(uncounted) == {"full": 3, "empty": 0}


async def test_another_error_is_not_tried_again_and_leaves_the_revision_before(
    uncounted: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await asyncpg.connect(uncounted.require("owner_database_url"))
    try:
        await owner.execute("CREATE TABLE policy ()")
        with pytest.raises(FreeholdError) as raised:
            await migrate(uncounted)
        assert raised.match('^migration 0005 failed, and the database is at revision 0004: .*"policy" already exists')
        assert "next try" not in caplog.text
        # What came before it is kept, and once the cause is gone it goes on from there.
        assert (await owner.fetchval(REVISION), await counts(uncounted)) == ("0004", {"full": 3, "empty": 0})
        await owner.execute("DROP TABLE policy")
        assert await migrate(uncounted) == NEWEST
    finally:
        await owner.close()
