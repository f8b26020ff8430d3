import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update

from server.account_types.models import AccountType
from server.accounts.models import Account
from server.assurance.models import Setup
from server.database import transaction
from server.idempotency import KEPT, IdempotencyKey
from server.jobs import Outbox
from tests.server.waiting import until
from tests.workers.world import World
from workers.account_types.upkeep import UNIT, Units
from workers.executor import Executor
from workers.lease import Lease
from workers.setups import SETUP
from workers.sweeper import sweep_forever, take_due


async def taken(world: World) -> set[UUID]:
    """The setups that a worker with nothing to do takes up in one sweep."""
    begun: list[UUID] = []

    async def work(lease: Lease[Setup]) -> None:
        begun.append(lease.row_id)

    executor = Executor(world.engine, SETUP, 50, work)
    await take_due(world.engine, executor)
    await executor.idle()
    return set(begun)


async def age(world: World, setup_id: UUID, seconds: int) -> None:
    """Let the setup have been due for so long."""
    then = func.now() - timedelta(seconds=seconds)
    async with transaction(world.engine) as session:
        await session.execute(update(Setup).where(Setup.id == setup_id).values(next_attempt_at=then))


async def never(lease: Lease[Setup]) -> None:
    raise AssertionError(f"setup {lease.row_id} was claimed")


async def test_what_is_due_is_taken_without_redis_as_far_as_there_are_slots(
    world: World, team: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that finds a setup of a dead one need not send it to itself by way of the queue."""
    monkeypatch.setattr("workers.executor.FINISH_SECONDS", 0.1)
    setups = [(await world.request(f"Taken {number}", team))[1] for number in range(3)]
    held = await world.claim(setups[0])
    for setup_id in setups:
        # Longer than anything else that is due.
        await age(world, setup_id, 86_400)
    begun: asyncio.Queue[UUID] = asyncio.Queue()

    async def work(lease: Lease[Setup]) -> None:
        begun.put_nowait(lease.row_id)
        await asyncio.get_running_loop().create_future()

    executor = Executor(world.engine, SETUP, 2, work)
    try:
        await take_due(world.engine, executor)
        async with asyncio.timeout(5):
            assert {await begun.get(), await begun.get()} == set(setups[1:])
        assert executor.free == 0
        await take_due(world.engine, executor)
        assert begun.empty()
        held.check()
    finally:
        executor.wind_down()
        assert executor.free == 0
        await executor.close()


async def test_a_waiting_setup_is_taken_when_its_time_comes(world: World, team: UUID) -> None:
    _, setup_id = await world.request("Waiting", team)
    async with transaction(world.engine) as session:
        later = func.now() + timedelta(minutes=1)
        await session.execute(update(Setup).where(Setup.id == setup_id).values(next_attempt_at=later, status="WAITING"))
    assert await taken(world) == set()
    await world.make_due(setup_id)
    assert await taken(world) == {setup_id}


async def test_a_setup_is_left_to_who_holds_it_until_the_lease_runs_out(world: World, team: UUID) -> None:
    _, setup_id = await world.request("Held", team)
    await world.claim(setup_id)
    assert await taken(world) == set()
    async with transaction(world.engine) as session:
        gone = func.now() - timedelta(seconds=1)
        await session.execute(update(Setup).where(Setup.id == setup_id).values(lease_until=gone))
    assert await taken(world) == {setup_id}


async def test_an_account_type_whose_job_was_lost_is_taken_up_all_the_same(world: World) -> None:
    type_id = await world.account_type("Job lost")
    async with transaction(world.engine) as session:
        await session.execute(delete(Outbox))
        # Longer due than anything else.
        then = func.now() - timedelta(days=1)
        await session.execute(update(AccountType).where(AccountType.id == type_id).values(next_attempt_at=then))
    executor = Executor(world.engine, UNIT, 1, Units(world.engine, world.aws).run)
    await take_due(world.engine, executor)
    await executor.idle()
    async with transaction(world.engine) as session:
        kept = await session.get_one(AccountType, type_id)
    assert kept.organizational_unit_id is not None
    assert kept.next_attempt_at is None


async def test_a_worker_without_slots_sweeps_too_and_leaves_no_wake_ups_behind(world: World, team: UUID) -> None:
    """Whoever has a slot takes what is due by itself; while Redis is away wake-ups would pile up."""
    await world.request("No slot", team)

    async def left() -> set[str]:
        async with transaction(world.engine) as session:
            return set(await session.scalars(select(IdempotencyKey.key)))

    async def swept() -> bool:
        return "expired" not in await left()

    async with transaction(world.engine) as session:
        # Accounts that other tests have left due get setups, and these jobs.
        await session.execute(update(Account).values(governance_due_at=None))
        await session.execute(delete(Outbox))
        for key, age in (("expired", KEPT + timedelta(minutes=1)), ("kept", KEPT - timedelta(minutes=1))):
            session.add(
                IdempotencyKey(
                    tenancy_id=world.tenancy_id, key=key, mutation="m", digest=b"", created_at=func.now() - age
                )
            )
    sweeping = asyncio.create_task(sweep_forever(world.engine, Executor(world.engine, SETUP, 0, never)))
    await until(swept)
    sweeping.cancel()
    assert await left() == {"kept"}
    async with transaction(world.engine) as session:
        assert await session.scalar(select(func.count()).select_from(Outbox)) == 0
