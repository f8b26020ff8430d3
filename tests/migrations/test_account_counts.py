"""Accounts that were there before their counters, counted beside requests and by owners who may not see them."""

import asyncio
import secrets
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from sqlalchemy import text

from server.config import Settings
from server.errors import FreeholdError
from server.migrate import migrate
from tests.migrations.arrange import ACCOUNTS, as_worker, counts, is_waited_for, make_uncounted, on_owner
from tests.server.fixtures import Owner
from tests.server.waiting import until

# As createAccount and updateAccount lock them.
LOCK_TYPE = "SELECT id FROM account_type WHERE name = $1 FOR KEY SHARE"
LOCK_ACCOUNT = "SELECT id FROM account WHERE name = $1 FOR NO KEY UPDATE"
MOVE = "UPDATE account SET account_type_id = $2 WHERE name = $1"
READ = "SELECT count(*) FROM account JOIN account_type ON account_type.id = account.account_type_id"


async def create(worker: Owner, name: str, kind: str) -> None:
    async with worker.transaction():
        await worker.execute(LOCK_TYPE, kind)
        await worker.execute(ACCOUNTS, [name], kind)


async def move(worker: Owner, name: str, kind: str) -> None:
    async with worker.transaction():
        await worker.execute(LOCK_ACCOUNT, name)
        await worker.execute(MOVE, name, await worker.fetchval(LOCK_TYPE, kind))


async def counted(settings: Settings) -> dict[str, int]:
    async with as_worker(settings) as worker:
        kinds = "SELECT name, (SELECT count(*) FROM account WHERE account_type_id = account_type.id) FROM account_type"
        return dict(await worker.fetch(kinds))


async def test_reads_go_on_while_the_migration_waits_for_a_request(uncounted: Settings) -> None:
    async with as_worker(uncounted) as worker, as_worker(uncounted) as reader:
        async with worker.transaction():
            await worker.execute(LOCK_TYPE, "empty")
            migration = asyncio.create_task(migrate(uncounted))
            await until(lambda: is_waited_for(reader))
            async with asyncio.timeout(0.2):
                assert await reader.fetchval(READ) == 3
            await worker.execute(ACCOUNTS, ["d"], "empty")
        await migration
    assert await counts(uncounted) == {"full": 3, "empty": 1}


async def test_a_request_that_has_locked_its_account_goes_on(uncounted: Settings) -> None:
    async with as_worker(uncounted) as worker, as_worker(uncounted) as observer:
        async with worker.transaction():
            await worker.execute(LOCK_ACCOUNT, "a")
            migration = asyncio.create_task(migrate(uncounted))

            async def met() -> bool:
                return migration.done() or await is_waited_for(observer)

            await until(met)
            await worker.execute(MOVE, "a", await worker.fetchval(LOCK_TYPE, "empty"))
        await migration
    assert await counts(uncounted) == {"full": 2, "empty": 1}


@pytest.mark.parametrize(("before", "after"), [("0003", "0004"), ("0006", "0007"), ("0003", "head")])
async def test_requests_go_on_side_by_side_with_a_migration(uncounted: Settings, before: str, after: str) -> None:
    """Each migration has a transaction of its own: one that needs the accounts for itself would not get them while an
    earlier one had the types, for which those wait who have locked an account.
    """
    await migrate(uncounted, before)
    over = asyncio.Event()

    async def work(number: int) -> int:
        done = 0
        async with as_worker(uncounted) as worker:
            while not over.is_set():
                await create(worker, f"{number} {done}", ("full", "empty")[done % 2])
                await move(worker, "abc"[(number + done) % 3], ("full", "empty")[(number + done) % 2])
                assert await worker.fetchval(READ) > done
                done += 1
        return done

    requests = [asyncio.create_task(work(number)) for number in range(4)]
    try:
        await migrate(uncounted, after)
    finally:
        over.set()
    done = await asyncio.gather(*requests)
    found = await counts(uncounted)
    assert sum(found.values()) == 3 + sum(done)
    assert found == await counted(uncounted)


async def test_a_counter_that_is_wrong_is_never_kept(uncounted: Settings) -> None:
    owner = await asyncpg.connect(uncounted.require("owner_database_url"))
    try:
        await owner.execute(
            "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "CREATE TRIGGER forget BEFORE UPDATE ON account_type FOR EACH ROW EXECUTE FUNCTION forget()"
        )
        with pytest.raises(FreeholdError, match="counters of account types add up to 0, but there are 3 accounts"):
            await migrate(uncounted)
        assert await owner.fetchval("SELECT version_num FROM alembic_version") == "0003"
    finally:
        await owner.close()


async def plain_owner_of_a_database(settings: Settings) -> Settings:
    """Settings for an empty database whose owner may nothing but own it: row-level security hides its own rows."""
    name, owner = f"test_{secrets.token_hex(6)}", await asyncpg.connect(settings.require("owner_database_url"))
    try:
        await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
        await owner.execute(f"GRANT {name} TO CURRENT_USER WITH SET TRUE, INHERIT FALSE")
        await owner.execute(f"CREATE DATABASE {name} OWNER {name}")
    finally:
        await owner.close()

    def at(url: str | None, credentials: str = "") -> str:
        parts = urlsplit(str(url))
        netloc = f"{credentials}@{parts.hostname}:{parts.port}" if credentials else parts.netloc
        return urlunsplit(parts._replace(path=f"/{name}", netloc=netloc))

    return Settings(
        owner_database_url=at(settings.owner_database_url, f"{name}:{name}"),
        database_url=at(settings.database_url),
        worker_database_url=at(settings.worker_database_url),
    )


async def test_an_owner_from_whom_row_level_security_hides_the_rows_counts_them(migrated: Settings) -> None:
    plain = await plain_owner_of_a_database(migrated)
    await make_uncounted(plain)
    hidden = text("SELECT count(*) FROM account")
    assert await on_owner(plain, lambda connection: connection.scalar(hidden)) == 0
    await migrate(plain)
    assert await counts(plain) == {"full": 3, "empty": 0}
    assert await on_owner(plain, lambda connection: connection.scalar(hidden)) == 0
