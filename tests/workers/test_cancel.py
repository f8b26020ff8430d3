"""A setup is cancelled while a worker is at work on it: either AWS is never asked, or the cancellation is refused."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import event, text

from server.accounts.models import AccountStatus
from server.assurance.models import IntentState, SetupStatus, StageStatus
from server.assurance.requests import cancel_account_setup
from server.database import transaction
from server.errors import Refused, UserErrorCode
from server.leases import LeaseLost
from tests.server.waiting import until
from tests.workers.test_create_account import is_done, requested
from tests.workers.world import World
from workers.assurance.run import Run
from workers.assurance.runner import Runner
from workers.assurance.stages import create_account
from workers.lease import claim
from workers.setups import SETUP


async def cancel(world: World, setup_id: UUID) -> None:
    async with transaction(world.engine) as session:
        await cancel_account_setup(session, world.tenancy_id, setup_id)


async def waiting_for_a_lock(world: World, number: int) -> None:
    """Wait until so many transactions wait for a row."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype IN ('transactionid', 'tuple') AND NOT granted")

    async def blocked() -> bool:
        async with transaction(world.engine) as session:
            return bool(await session.scalar(waiting) == number)

    await until(blocked)


async def is_cancelled(world: World, account_id: UUID, setup_id: UUID) -> None:
    assert (await world.account(account_id)).status is AccountStatus.CANCELLED
    assert (await world.setup_of_id(setup_id)).status is SetupStatus.CANCELLED
    assert {stage.status for stage in (await world.stages(setup_id)).values()} == {StageStatus.CANCELLED}
    last = (await world.events(account_id))[-1]
    assert last.setup is not None
    assert (last.setup["status"], last.account["status"]) == ("CANCELLED", "CANCELLED")


async def test_between_its_claim_and_its_call_a_worker_stops(world: World, team: UUID) -> None:
    account_id, setup_id, _ = await requested(world, team, "Cancelled at work")
    async with world.holding(setup_id) as run:
        intent = await create_account._declare(run)
        await cancel(world, setup_id)
        with pytest.raises(LeaseLost):
            await create_account._call(run, intent)
        with pytest.raises(LeaseLost):
            await run.lease.give_back()
    await is_cancelled(world, account_id, setup_id)
    assert world.proxy.calls["CreateAccount"] == 0
    assert await claim(world.engine, SETUP, setup_id) is None


async def test_a_worker_about_to_commit_its_call_waits_for_a_cancellation_and_stops(world: World, team: UUID) -> None:
    account_id, setup_id, _ = await requested(world, team, "Cancelled first")
    async with world.holding(setup_id) as run:
        intent = await create_account._declare(run)
        async with transaction(world.engine) as session:
            await cancel_account_setup(session, world.tenancy_id, setup_id)
            # One stands before its renewal of the lease, one past it.
            workers = [
                asyncio.create_task(create_account._call(run, intent)),
                asyncio.create_task(commit_calling(run)),
            ]
            await waiting_for_a_lock(world, 2)
        for worker in workers:
            with pytest.raises(LeaseLost):
                await worker
    await is_cancelled(world, account_id, setup_id)
    assert world.proxy.calls["CreateAccount"] == 0


async def commit_calling(run: Run) -> None:
    async with run.write() as session:
        (await create_account._mine(session, run)).state = IntentState.CALLING


async def test_a_cancellation_waits_for_a_worker_that_commits_its_call_and_is_refused(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Called first")
    async with world.holding(setup_id) as run:
        await create_account._declare(run)
        async with run.write() as session:
            (await create_account._mine(session, run)).state = IntentState.CALLING
            await session.flush()
            cancelling = asyncio.create_task(cancel(world, setup_id))
            await waiting_for_a_lock(world, 1)
        with pytest.raises(Refused) as refused:
            await cancelling
        assert [error.code for error in refused.value.errors] == [UserErrorCode.CREATION_BEGUN]
    await world.complete(setup_id)
    await is_done(world, account_id, email)


# What a worker commits on its way: the claim, the stage begun, what it reads, its intent, the lease renewed, CALLING...
@pytest.mark.parametrize("commits", range(10))
async def test_wherever_they_meet_aws_has_what_is_not_cancelled_and_nothing_else(
    world: World, team: UUID, commits: int
) -> None:
    account_id, setup_id, email = await requested(world, team, f"Met at {commits}")

    async def work() -> None:
        lease = await claim(world.engine, SETUP, setup_id)
        if lease is not None:
            await Runner(world.engine, world.aws, [create_account.STAGE]).run(lease)

    working = asyncio.create_task(work())
    await committing(world, commits)
    cancelled, worked = await asyncio.gather(cancel(world, setup_id), working, return_exceptions=True)
    if isinstance(cancelled, Refused):
        assert [error.code for error in cancelled.errors] in (
            [UserErrorCode.CREATION_BEGUN],
            [UserErrorCode.SETUP_OVER],
        )
        assert worked is None
        await is_done(world, account_id, email)
    else:
        assert cancelled is None
        assert worked is None or isinstance(worked, LeaseLost)
        await is_cancelled(world, account_id, setup_id)
        assert await world.aws_accounts(email) == []
    assert world.proxy.calls["CreateAccount"] == len(await world.aws_accounts(email))


async def committing(world: World, number: int) -> None:
    """Wait until so many transactions are about to be committed."""
    reached = asyncio.Event()
    left = number

    def count(_: object) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            reached.set()

    if number > 0:
        event.listen(world.engine.sync_engine, "commit", count)
        try:
            await reached.wait()
        finally:
            event.remove(world.engine.sync_engine, "commit", count)
