import asyncio
import time
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.assurance.models import Event, Setup, SetupStatus
from server.assurance.service import hold, wait_stage
from server.database import create_engine, transaction
from server.jobs import Outbox
from server.leases import LeaseLost, StageError, StageErrorClass
from tests.workers.proxies import Gate
from tests.workers.world import World
from workers import lease as leases
from workers.assurance.runner import Runner
from workers.assurance.stages import STAGES
from workers.aws.session import guard
from workers.lease import LEASE, claim
from workers.setups import SETUP


async def fresh_setup(world: World, team: UUID, name: str) -> UUID:
    return (await world.request(name, team))[1]


async def test_of_many_workers_one_gets_the_setup(world: World, team: UUID) -> None:
    setup_id = await fresh_setup(world, team, "Claimed once")
    leases = await asyncio.gather(*(claim(world.engine, SETUP, setup_id) for _ in range(8)))
    assert [lease.token for lease in leases if lease is not None] == [1]


async def test_what_is_not_due_or_has_ended_is_not_claimed(world: World, team: UUID, hardened: UUID) -> None:
    setup_id = await fresh_setup(world, team, "Claimed when due")
    async with transaction(world.engine) as session:
        later = func.now() + timedelta(minutes=1)
        await session.execute(update(Setup).where(Setup.id == setup_id).values(next_attempt_at=later))
    assert await claim(world.engine, SETUP, setup_id) is None
    assert await claim(world.engine, SETUP, (await world.setup_of(hardened)).id) is None


async def test_an_expired_lease_is_claimed_with_a_new_token(world: World, team: UUID) -> None:
    setup_id = await fresh_setup(world, team, "Claimed again")
    first = await world.claim(setup_id)
    assert await claim(world.engine, SETUP, setup_id) is None
    await world.make_due(setup_id)
    second = await world.claim(setup_id)
    assert second.token == first.token + 1
    with pytest.raises(LeaseLost):
        await first.renew()
    await second.renew()


async def test_a_worker_that_was_presumed_dead_writes_nothing(world: World, team: UUID) -> None:
    account_id, setup_id = await world.request("Zombie", team)
    zombie = await world.claim(setup_id)
    await world.make_due(setup_id)
    await world.claim(setup_id)
    before = await snapshot(world, account_id, setup_id)
    with pytest.raises(LeaseLost):
        await asyncio.create_task(Runner(world.engine, world.aws, STAGES).run(zombie))
    with pytest.raises(LeaseLost):
        await zombie.give_back()
    assert await snapshot(world, account_id, setup_id) == before
    assert world.proxy.calls["CreateAccount"] == 0


async def snapshot(world: World, account_id: UUID, setup_id: UUID) -> object:
    async with transaction(world.engine) as session:
        return (
            (await session.execute(select(Setup.__table__).where(Setup.id == setup_id))).one(),
            await session.scalar(select(func.count()).select_from(Event).where(Event.account_id == account_id)),
            [(stage.name, stage.status, stage.attempts) for stage in (await world.stages(setup_id)).values()],
        )


async def test_a_worker_that_is_frozen_while_it_writes_does_not_keep_the_setup(
    world: World, team: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.database.IDLE_SECONDS", 0.2)
    setup_id = await fresh_setup(world, team, "Frozen while it writes")
    token = (await world.claim(setup_id)).token
    await world.make_due(setup_id)
    engine = create_engine(world.settings.require("worker_database_url"), pool_size=1, command_seconds=20)
    frozen = await engine.connect()
    await hold(AsyncSession(frozen), setup_id, token)
    async with asyncio.timeout(10):
        taken = await claim(world.engine, SETUP, setup_id)
    assert taken is not None
    assert taken.token == token + 1
    await frozen.invalidate()
    await engine.dispose()


async def test_past_its_deadline_a_worker_does_not_call_aws(world: World, team: UUID) -> None:
    setup_id = await fresh_setup(world, team, "Frozen")
    lease = await world.claim(setup_id)
    lease.deadline = time.monotonic()
    token = guard.set(lambda _action: lease.check())
    try:
        async with world.aws.client("organizations", "us-east-1") as organizations:
            with pytest.raises(LeaseLost):
                await organizations.create_account(Email="frozen@example.com", AccountName="Frozen")
    finally:
        guard.reset(token)
    assert world.proxy.calls["CreateAccount"] == 0


async def test_a_renewal_lasts_a_whole_lease_and_no_longer(world: World, team: UUID) -> None:
    lease = await world.claim(await fresh_setup(world, team, "Renewed"))
    before = time.monotonic()
    await lease.renew()
    length = LEASE.total_seconds()
    assert before + length <= lease.deadline <= time.monotonic() + length
    lease.check(margin=length - 1)
    with pytest.raises(LeaseLost):
        lease.check(margin=length + 1)


async def test_a_heartbeat_that_comes_late_does_not_take_back_what_was_given_up(world: World, team: UUID) -> None:
    setup_id = await fresh_setup(world, team, "Waits")
    lease = await world.claim(setup_id)
    async with lease.write() as (session, setup):
        busy = StageError("ThrottlingException", "Slow down.", StageErrorClass.TRANSIENT)
        await wait_stage(session, setup, 1, busy, timedelta(0))
    with pytest.raises(LeaseLost):
        await lease.renew()
    assert (await world.setup_of_id(setup_id)).lease_until is None


async def test_while_postgresql_is_silent_the_work_is_stopped_a_second_before_the_lease_ends(
    world: World, team: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.1)
    setup_id = await fresh_setup(world, team, "Silence")
    gate = Gate(world.settings.require("worker_database_url"))
    await gate.open()
    engine = create_engine(gate.url)
    try:
        lease = await claim(engine, SETUP, setup_id)
        assert lease is not None
        gate.stall()
        lease.deadline = time.monotonic() + 1.5
        with pytest.raises(LeaseLost):
            async with asyncio.timeout(5):
                await lease.keep()
        assert 0.5 < lease.deadline - time.monotonic() <= 1
    finally:
        await gate.shut()
        await engine.dispose()


async def test_what_is_given_back_is_offered_at_once(world: World, team: UUID) -> None:
    setup_id = await fresh_setup(world, team, "Given back")
    lease = await world.claim(setup_id)
    await lease.give_back()
    setup = await world.setup_of_id(setup_id)
    assert (setup.status, setup.lease_until, setup.lease_owner) == (SetupStatus.RUNNING, None, None)
    async with transaction(world.engine) as session:
        job_ids = (await session.scalars(select(Outbox.job_id).where(Outbox.argument == setup_id))).all()
    assert f"run_setup:{setup_id}:{lease.token}.{setup.hint_number}" in job_ids
    await world.claim(setup_id)
