"""Counters that are wrong, and `freehold recount`, which puts them right."""

import asyncio

from server.config import Settings
from server.operations import Recounted, recount_accounts
from tests.server.accounts.test_counts import CREATE, add_type, as_app, counts
from tests.server.fixtures import NewTenant, Owner, Tenant
from tests.server.waiting import until

WRONG = "UPDATE account_type SET account_count = account_count + $2 WHERE tenancy_id = $1 AND name = $3"


async def tenancy_name(owner: Owner, tenant: Tenant) -> str:
    return str(await owner.fetchval("SELECT name FROM tenancy WHERE id = $1", tenant.tenancy_id))


async def recounted(settings: Settings) -> list[Recounted]:
    found: list[Recounted] = []
    await recount_accounts(settings, found.append)
    return found


async def test_what_was_wrong_is_told_by_tenancy_and_type_and_mended(
    owner: Owner, settings: Settings, new_tenant: NewTenant
) -> None:
    tenants = [await new_tenant(), await new_tenant()]
    for tenant in tenants:
        await add_type(owner, tenant)
    assert await recounted(settings) == []
    await owner.execute(WRONG, tenants[0].tenancy_id, 2, "Other")
    await owner.execute(WRONG, tenants[0].tenancy_id, -1, "General")
    await owner.execute(WRONG, tenants[1].tenancy_id, 5, "General")
    names = [await tenancy_name(owner, tenant) for tenant in tenants]
    found = [(each.tenancy, each.account_type, each.kept, each.counted) for each in await recounted(settings)]
    expected = [(names[0], "General", 0, 1), (names[0], "Other", 2, 0), (names[1], "General", 6, 1)]
    assert found == sorted(expected)
    assert await counts(owner, tenants[0]) == {"General": 1, "Other": 0}
    assert await counts(owner, tenants[1]) == {"General": 1, "Other": 0}
    assert await recounted(settings) == []


async def test_an_account_on_its_way_is_waited_for(owner: Owner, settings: Settings, tenant: Tenant) -> None:
    await owner.execute(WRONG, tenant.tenancy_id, 7, "General")
    app = await as_app(settings, tenant)

    async def waits() -> bool:
        blocked = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid <> $1 AND $1 = ANY(pg_blocking_pids(pid)))"
        return bool(await owner.fetchval(blocked, app.get_server_pid()))

    try:
        async with app.transaction():
            await app.execute(CREATE, tenant.tenancy_id, "", 2)
            recount = asyncio.create_task(recounted(settings))
            await until(waits)
        [found] = await recount
        assert (found.kept, found.counted) == (10, 3)
        assert await counts(owner, tenant) == {"General": 3}
    finally:
        await app.close()
