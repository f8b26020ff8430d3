"""The counters of accounts: right after every way in which accounts come, go and move."""

import asyncio

import asyncpg

from server.config import Settings
from tests.server.fixtures import NewTenant, Owner, Tenant

COUNTED = """
    SELECT name, account_count, (SELECT count(*) FROM account WHERE account_type_id = account_type.id)
    FROM account_type WHERE tenancy_id = $1
"""
CREATE = """
    INSERT INTO account
    (tenancy_id, name, email, role, origin, status, account_type_id, created_by_kind, created_by_name)
    SELECT tenancy_id, account_type.name || n || $2, account_type.name || n || $2, 'MEMBER', 'CREATED', 'ACTIVE', id,
    'SYSTEM', 't' FROM account_type, generate_series(1, $3) n WHERE tenancy_id = $1
"""


async def counts(owner: Owner, tenant: Tenant) -> dict[str, int]:
    """The counters by type; each is what counting finds."""
    rows = await owner.fetch(COUNTED, tenant.tenancy_id)
    assert all(counter == counted for _, counter, counted in rows), rows
    return {name: counter for name, counter, _ in rows}


async def as_app(settings: Settings, tenant: Tenant) -> Owner:
    connection: Owner = await asyncpg.connect(settings.require("database_url"))
    await connection.execute("SELECT set_config('app.tenancy_id', $1, false)", str(tenant.tenancy_id))
    return connection


async def add_type(owner: Owner, tenant: Tenant) -> None:
    await owner.execute(
        "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'Other', false)", tenant.tenancy_id
    )


async def test_as_they_come_move_and_go(owner: Owner, settings: Settings, new_tenant: NewTenant) -> None:
    tenant, other = await new_tenant(), await new_tenant()
    await add_type(owner, tenant)
    app = await as_app(settings, tenant)
    try:
        assert await counts(owner, tenant) == {"General": 1, "Other": 0}
        await app.execute(CREATE, tenant.tenancy_id, "a", 3)
        assert await counts(owner, tenant) == {"General": 4, "Other": 3}
        await app.execute("UPDATE account SET account_type_id = (SELECT id FROM account_type WHERE name = 'Other')")
        assert await counts(owner, tenant) == {"General": 0, "Other": 7}
        await app.execute("UPDATE account SET name = name || '!'")
        transaction = app.transaction()
        await transaction.start()
        await app.execute(CREATE, tenant.tenancy_id, "b", 2)
        await transaction.rollback()
        assert await counts(owner, tenant) == {"General": 0, "Other": 7}
        await owner.execute("DELETE FROM account WHERE name LIKE 'General%'")
        assert await counts(owner, tenant) == {"General": 0, "Other": 4}
        assert await counts(owner, other) == {"General": 1}
    finally:
        await app.close()


async def test_side_by_side_without_waiting_for_each_other_in_a_circle(
    owner: Owner, settings: Settings, tenant: Tenant
) -> None:
    await add_type(owner, tenant)
    connections = [await as_app(settings, tenant) for _ in range(4)]
    swap = """UPDATE account SET account_type_id = (SELECT id FROM account_type WHERE name =
        CASE WHEN account_type_id = (SELECT id FROM account_type WHERE name = 'Other') THEN 'General' ELSE 'Other' END)
        WHERE name LIKE $1"""

    async def work(number: int, app: Owner) -> None:
        await app.execute(CREATE, tenant.tenancy_id, f" of {number}", 2)
        for _ in range(10):
            async with app.transaction():
                await app.execute(swap, f"% of {number}")
                await app.execute(
                    CREATE.replace("name || n", "name || n || clock_timestamp()"), tenant.tenancy_id, "", 1
                )

    try:
        await asyncio.gather(*(work(number, app) for number, app in enumerate(connections)))
        found = await counts(owner, tenant)
        assert found["General"] + found["Other"] == 1 + 4 * (4 + 10 * 2)
    finally:
        for app in connections:
            await app.close()
