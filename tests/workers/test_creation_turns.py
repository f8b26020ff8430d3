"""AWS creates five accounts of an organization at a time: whose turn it is, among all workers."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from server.assurance.models import CreateIntent, IntentState
from tests.workers.test_create_account import REQUEST, is_done, requested, waits
from tests.workers.world import World
from workers.assurance.run import Run
from workers.assurance.stages import create_account


async def five_in_creation(world: World, team: UUID, name: str) -> list[UUID]:
    """Other workers are at work on five."""
    others = [await requested(world, team, f"{name} {number}") for number in range(5)]
    for account_id, setup_id, _ in others:
        async with world.holding(setup_id) as run:
            await create_account._declare(run)
        await world.set_intent(account_id, state=IntentState.REQUESTED, request_id=REQUEST)
    return [account_id for account_id, _, _ in others]


class Looks:
    """Counts how often it was looked for a free slot. `meanwhile` is what comes after the second time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Run], Awaitable[None]]) -> None:
        self.count = 0
        plain = create_account._call

        async def call(run: Run, intent: CreateIntent) -> CreateIntent | None:
            called = await plain(run, intent)
            self.count += 1
            if self.count == 2:
                assert called is None
                await meanwhile(run)
            return called

        monkeypatch.setattr(create_account, "_call", call)
        monkeypatch.setattr(create_account, "SLOT_SECONDS", 0.01)


async def test_five_accounts_at_a_time_are_being_created_whoever_does_it(
    world: World, team: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = await five_in_creation(world, team, "In creation")
    account_id, setup_id, email = await requested(world, team, "In line")
    monkeypatch.setattr(create_account, "TURN_SECONDS", 0.0)
    await waits(world, setup_id, "CREATE_ACCOUNT_QUEUED")
    assert world.proxy.calls["CreateAccount"] == 0
    assert (await world.intent(account_id)).state is IntentState.INTENT
    await world.set_intent(others[0], state=IntentState.FAILED)
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    for other in others:
        await world.set_intent(other, state=IntentState.FAILED)


async def test_a_setup_waits_for_its_turn_where_it_stands(
    world: World, team: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = await five_in_creation(world, team, "Before it")
    account_id, setup_id, email = await requested(world, team, "In its turn")

    async def one_is_done(_: Run) -> None:
        await world.set_intent(others[0], state=IntentState.FAILED)

    looks = Looks(monkeypatch, one_is_done)
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert looks.count == 3
    assert (await world.stages(setup_id))["create_account"].attempts == 1
    for other in others:
        await world.set_intent(other, state=IntentState.FAILED)


async def test_a_worker_that_stops_does_not_wait_for_a_turn(
    world: World, team: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = await five_in_creation(world, team, "Ahead of it")
    _, setup_id, _ = await requested(world, team, "Stopped in line")

    async def stop(run: Run) -> None:
        run.lease.wanted_back = True

    looks = Looks(monkeypatch, stop)
    await waits(world, setup_id, "CREATE_ACCOUNT_QUEUED")
    assert looks.count == 2
    for other in others:
        await world.set_intent(other, state=IntentState.FAILED)
