"""AWS creates five accounts of an organization at a time: whose turn it is, among all workers."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select

from server.accounts.models import Account
from server.assurance.models import CreateIntent, IntentState, Setup, SetupStatus, StageStatus
from server.database import transaction
from server.jobs import Job, Outbox
from tests.workers.proxies import refuse
from tests.workers.test_create_account import REQUEST, is_done, requested
from tests.workers.world import World, new_tenancy
from workers.assurance.runner import Runner
from workers.assurance.stages import STAGES
from workers.lease import claim
from workers.setups import SETUP


async def in_line(world: World, team: UUID, name: str, number: int) -> list[UUID]:
    """The setups of so many accounts, in the order of their requests."""
    return [(await requested(world, team, f"{name} {each}"))[1] for each in range(number)]


async def due(world: World) -> set[UUID]:
    async with transaction(world.engine) as session:
        return set(await session.scalars(select(Setup.id).where(*SETUP.due)))


async def give_number(world: World, setup_id: UUID) -> None:
    """AWS has created the account."""
    account_id = (await world.setup_of_id(setup_id)).account_id
    await world.change(account_id, aws_account_id=f"{account_id.int % 10**12:012}")


async def five_are_asked_for(world: World, setups: Sequence[UUID]) -> None:
    """Other workers, which are gone, have asked AWS for these accounts."""
    async with transaction(world.engine) as session:
        for setup_id in setups:
            account = await session.get_one(Account, (await session.get_one(Setup, setup_id)).account_id)
            session.add(
                CreateIntent(
                    account_id=account.id,
                    tenancy_id=account.tenancy_id,
                    email=account.email,
                    account_name=account.name,
                    state=IntentState.REQUESTED,
                    request_id=REQUEST,
                )
            )


async def test_the_first_five_have_a_turn_and_the_next_when_one_of_them_has_its_account(
    world: World, team: UUID
) -> None:
    setups = await in_line(world, team, "In order", 7)
    assert await due(world) == set(setups[:5])
    assert await claim(world.engine, SETUP, setups[5]) is None
    for setup_id in reversed(setups[:5]):
        await world.claim(setup_id)
    assert await due(world) == set()
    await give_number(world, setups[3])
    assert await due(world) == {setups[5]}
    await world.claim(setups[5])
    assert await claim(world.engine, SETUP, setups[6]) is None


async def test_workers_that_claim_together_take_no_more_than_five(world: World, team: UUID) -> None:
    setups = await in_line(world, team, "Together", 8)
    leases = await asyncio.gather(*(claim(world.engine, SETUP, setup_id) for setup_id in reversed(setups * 2)))
    assert {lease.row_id for lease in leases if lease is not None} == set(setups[:5])


async def test_a_setup_that_waits_for_something_else_or_is_over_leaves_its_turn_to_the_next(
    world: World, team: UUID
) -> None:
    setups = await in_line(world, team, "Given up", 8)
    for setup_id, status in ((setups[0], SetupStatus.FAILED), (setups[1], SetupStatus.CANCELLED)):
        await world.set_setup(setup_id, status=status)
    assert await due(world) == set(setups[2:7])
    world.proxy.fail("CreateAccount", refuse("TooManyRequestsException"))
    assert (await world.run(setups[2])).status is SetupStatus.WAITING
    assert await due(world) == set(setups[3:8])
    # Its time comes: it is still the first.
    await world.make_due(setups[2])
    assert await due(world) == set(setups[2:7])


async def test_accounts_that_aws_was_asked_for_are_taken_up_and_count_until_it_has_created_them(
    world: World, team: UUID
) -> None:
    setups = await in_line(world, team, "Asked for", 6)
    await five_are_asked_for(world, setups[:5])
    # They are taken up by whoever comes, and none besides.
    assert await due(world) == set(setups[:5])
    await give_number(world, setups[0])
    assert await due(world) == set(setups)


async def test_turns_are_those_of_one_tenancy_and_not_for_accounts_that_are_there(
    world: World, team: UUID, hardened: UUID
) -> None:
    await in_line(world, team, "Before them", 6)
    reassured = await world.reassure(hardened)
    await new_tenancy(world.engine, "turns-of-its-own")
    async with transaction(world.engine) as session:
        management = await session.scalar(
            select(Setup.id).where(Setup.tenancy_id != world.tenancy_id, Setup.status == SetupStatus.PENDING)
        )
    assert {reassured, management} <= await due(world)


async def test_whoever_has_its_account_wakes_the_next(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Done and gone")
    setups = await in_line(world, team, "Woken", 6)
    async with transaction(world.engine) as session:
        await session.execute(delete(Outbox))
    for each in setups[:4]:
        await world.claim(each)
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    async with transaction(world.engine) as session:
        woken = (await session.execute(select(Outbox.job, Outbox.argument))).all()
    assert woken == [(Job.RUN_SETUP, setups[4])]


async def test_who_was_claimed_beside_five_does_not_call(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "One too many")
    lease = await world.claim(setup_id)
    await five_are_asked_for(world, await in_line(world, team, "Overtaken by", 5))
    await asyncio.create_task(Runner(world.engine, world.aws, STAGES).run(lease))
    stage = (await world.stages(setup_id))["create_account"]
    assert (stage.status, stage.error_code) == (StageStatus.WAITING, "CREATE_ACCOUNT_QUEUED")
    assert (world.proxy.calls["CreateAccount"], (await world.intent(account_id)).state) == (0, IntentState.INTENT)
    await world.end_setups()
    await world.set_setup(setup_id, status=SetupStatus.WAITING)
    await world.make_due(setup_id)
    await world.complete(setup_id)
    await is_done(world, account_id, email)


async def test_what_a_failed_setup_has_asked_for_is_under_way_for_a_quarter_of_an_hour(
    world: World, team: UUID
) -> None:
    *setups, last = await in_line(world, team, "Left behind", 6)
    await five_are_asked_for(world, setups)
    accounts = [(await world.setup_of_id(setup_id)).account_id for setup_id in setups]
    for setup_id, account_id in zip(setups, accounts, strict=True):
        await world.set_setup(setup_id, status=SetupStatus.FAILED)
        await world.set_intent(account_id, called_at=datetime.now(UTC) - timedelta(minutes=14))
    assert await due(world) == set()
    await world.set_intent(accounts[0], called_at=datetime.now(UTC) - timedelta(minutes=16))
    assert await due(world) == {last}
    await world.complete(last)
    for account_id in accounts:
        await world.set_intent(account_id, state=IntentState.FAILED)
