"""Turns at changing an organization: one worker at a time, and none waits for a dead one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from server.database import transaction
from server.tenancies.models import OrganizationTurn
from tests.workers.world import World
from workers.aws.session import Aws
from workers.aws.turns import organization_turn


@pytest.fixture
async def workers(world: World) -> AsyncIterator[list[Aws]]:
    """What two workers reach AWS with: a lock within a process is not shared by them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Aws(world.settings)) for _ in range(2)]


async def turns(world: World) -> int:
    async with transaction(world.engine) as session:
        return await session.scalar(select(func.count()).select_from(OrganizationTurn)) or 0


async def test_workers_change_an_organization_one_after_the_other(world: World, workers: list[Aws]) -> None:
    inside, most, done = 0, 0, 0

    async def change(aws: Aws) -> None:
        nonlocal inside, most, done
        async with organization_turn(world.engine, aws, world.tenancy_id):
            inside += 1
            most = max(most, inside)
            # As long as a call to AWS, in which the others try.
            await asyncio.sleep(0.02)
            inside -= 1
            done += 1

    async with asyncio.timeout(20):
        await asyncio.gather(*(change(aws) for aws in workers for _ in range(5)))
    assert (most, done) == (1, 10)


async def test_a_worker_that_waits_has_the_next_turn(world: World, workers: list[Aws]) -> None:
    """Though many of the other worker wait too, and are nearer at hand."""
    order: list[int] = []
    others_wait = asyncio.Event()

    async def change(number: int) -> None:
        async with organization_turn(world.engine, workers[number], world.tenancy_id):
            order.append(number)
            if len(order) > 1:
                others_wait.set()
            # Longer than a look takes, so that whoever waits has been seen to wait.
            await asyncio.sleep(0.3)

    many = [asyncio.create_task(change(0)) for _ in range(5)]
    await others_wait.wait()
    begun = len(order)
    await change(1)
    assert order.index(1) <= begun
    await asyncio.gather(*many)


async def test_the_turn_ends_also_when_the_change_fails(world: World, workers: list[Aws]) -> None:
    async def change() -> None:
        async with organization_turn(world.engine, workers[0], world.tenancy_id):
            assert await turns(world) == 1
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await change()
    assert await turns(world) == 0


async def test_the_turn_of_a_dead_worker_runs_out(world: World, workers: list[Aws]) -> None:
    reached = asyncio.Event()

    async def change(tenancy_id: UUID) -> None:
        async with organization_turn(world.engine, workers[1], tenancy_id):
            reached.set()

    # Never left, as when the process is killed.
    dead = organization_turn(world.engine, workers[0], world.tenancy_id)
    await dead.__aenter__()
    try:
        waiting = asyncio.create_task(change(world.tenancy_id))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reached.wait()
        async with transaction(world.engine) as session:
            gone = func.clock_timestamp() - timedelta(seconds=1)
            await session.execute(update(OrganizationTurn).values(until=gone))
        async with asyncio.timeout(5):
            await waiting
    finally:
        # It leaves the turn that is not its own any more alone.
        await dead.__aexit__(None, None, None)
    assert await turns(world) == 0
