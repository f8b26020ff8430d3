"""A slot of a worker is for a setup that has something to do: accounts that wait for AWS hold none."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from server.accounts.models import AccountRole
from server.assurance.models import IntentState, SetupStatus, StageStatus
from tests.server.waiting import until
from tests.workers.proxies import answer
from tests.workers.test_create_account import BEGUN, is_done, requested
from tests.workers.world import World, new_tenancy
from workers.main import working

DONE = SetupStatus.COMPLETED


async def of_another_tenancy(world: World, hardened: UUID) -> UUID:
    """A setup of a tenancy that has nothing else to do."""
    other = replace(world, tenancy_id=await new_tenancy(world.engine, "beside"))
    management = (await other.account_in_role(AccountRole.MANAGEMENT)).id
    await other.change(management, aws_account_id=(await world.account(hardened)).aws_account_id)
    setup_id = (await other.setup_of(management)).id
    await other.replace_stages(setup_id, "assume_role")
    return setup_id


async def test_creations_that_wait_for_aws_hold_no_slot(world: World, team: UUID, hardened: UUID) -> None:
    """AWS takes its time over the first five of twelve accounts; a worker with two slots has little to do meanwhile."""
    world.proxy.fail("DescribeCreateAccountStatus", *[answer(BEGUN)] * 10_000)
    beside = await of_another_tenancy(world, hardened)
    asked = [await requested(world, team, f"In line {number}") for number in range(12)]
    async with working(replace(world.settings, concurrent_setups=2)):
        await until(lambda: in_creation(world, asked, 5), within=20)
        await world.until(await world.reassure(hardened), DONE, seconds=10)
        await world.until(beside, DONE, seconds=10)
        assert await in_creation(world, asked, 5)
        world.proxy.reset()
        for _, setup_id, _ in asked:
            await world.until(setup_id, DONE)
    for account_id, setup_id, email in asked:
        await is_done(world, account_id, email)
        # Requested, begun and done: an account in line is not taken up and put back.
        stages = [event.stage and event.stage["status"] for event in await world.events(account_id)]
        assert stages == [None, StageStatus.RUNNING, StageStatus.COMPLETED]
        assert (await world.setup_of_id(setup_id)).lease_token == 1


async def in_creation(world: World, asked: Sequence[tuple[UUID, UUID, str]], number: int) -> bool:
    """Whether AWS creates so many of the accounts."""
    return await world.count_intents([account_id for account_id, _, _ in asked], IntentState.REQUESTED) == number
