"""Locks of workers and of requests that meet on the same rows."""

import asyncio
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from server.access.grants import Grant, Revocation, set_account_type_access
from server.access.models import AccessRole
from server.accounts.models import Account
from server.database import transaction
from tests.server.waiting import until
from tests.workers.access import begin, change, group, states
from tests.workers.world import World
from workers.account_types.upkeep import UNIT
from workers.assurance.stage import StageStopped
from workers.lease import claim

WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


async def is_waiting(world: World) -> bool:
    async with transaction(world.engine) as session:
        return bool(await session.scalar(WAITING))


async def test_an_account_may_come_while_the_unit_of_its_type_is_written(world: World) -> None:
    """Whoever creates it refers to the type and then counts it there; the worker holds the type and then writes it."""

    type_id = await world.account_type(f"Written {uuid4().hex}")
    lease = await claim(world.engine, UNIT, type_id)
    assert lease is not None
    async with lease.write() as (session, account_type):
        creating = asyncio.create_task(world.request(f"Comes {uuid4().hex[:8]}", type_id))
        await until(partial(is_waiting, world), within=10)
        for unit in ("ou-0000-00000000", None):
            account_type.organizational_unit_id = unit
            await session.flush()
    account_id, _ = await creating
    assert (await world.account(account_id)).account_type_id == type_id


async def test_access_may_change_while_a_setup_writes_what_it_has_made(world: World) -> None:
    """Whoever grants has locked the account and then writes its rows, which the setup writes in an order of its own."""
    name = f"Noted {uuid4().hex[:6]}"
    type_id = await world.account_type(name)
    account_id, setup_id = await world.request(name, type_id)
    await world.complete(setup_id)
    made = await group(world, name)
    await change(world, type_id, Grant(made.id, AccessRole.READONLY))
    setup_id = await begin(world, account_id)
    async with world.holding(setup_id) as run:
        async with transaction(world.engine) as session:
            await session.execute(select(Account.id).where(Account.id == account_id).with_for_update(key_share=True))
            noting = asyncio.create_task(world.assure(run, "access"))
            await until(partial(is_waiting, world), within=20)
            again = Grant(made.id, AccessRole.READONLY, "arn:aws:iam::aws:policy/SecurityAudit")
            await set_account_type_access(session, world.tenancy_id, type_id, [again])
        # What it has made is not what is wanted by now.
        with pytest.raises(StageStopped, match="NOT_IN_EFFECT"):
            await noting
    await change(world, type_id, revoke=(Revocation(made.id),))
    await world.complete(setup_id)
    assert await states(world, account_id) == {}
