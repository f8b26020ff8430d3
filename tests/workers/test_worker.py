"""The whole worker: as a process that is stopped and killed, and while Redis or PostgreSQL is away."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest

from server.accounts.models import AccountStatus
from server.assurance.models import SetupStatus, StageStatus
from server.config import Settings
from tests.workers.proxies import Gate, Held, refuse
from tests.workers.world import World
from workers.main import working

DONE = SetupStatus.COMPLETED


def environment(settings: Settings) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")},
        "FREEHOLD_WORKER_DATABASE_URL": settings.require("worker_database_url"),
        "FREEHOLD_REDIS_URL": settings.require("redis_url"),
        "FREEHOLD_AWS_ENDPOINT_URL": settings.require("aws_endpoint_url"),
    }


@asynccontextmanager
async def worker_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "workers.main", env=environment(settings), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_five_setups_run_side_by_side(world: World, team: UUID) -> None:
    held = Held()
    world.proxy.fail("CreateRole", *[held] * 5)
    async with working(world.settings):
        asked = [await world.request(f"Side by side {number}", team) for number in range(5)]
        async with asyncio.timeout(20):
            while held.waiting < 5:
                held.reached.clear()
                await held.reached.wait()
        held.release()
        for account_id, setup_id in asked:
            await world.until(setup_id, DONE)
            assert (await world.account(account_id)).status is AccountStatus.ACTIVE
    assert world.proxy.calls["CreateAccount"] == 5


async def test_a_throttled_setup_goes_on_close_to_its_time(world: World, team: UUID) -> None:
    world.proxy.fail("MoveAccount", *(refuse("TooManyRequestsException") for _ in range(3)))
    async with working(world.settings):
        _, setup_id = await world.request("Throttled, then done", team)
        waiting = await world.until(setup_id, SetupStatus.WAITING)
        await world.until(setup_id, SetupStatus.RUNNING, DONE)
        delay = waiting.next_attempt_at.timestamp() - time.time()
        assert -1.5 < delay < 0.1
        await world.until(setup_id, DONE)


async def test_a_killed_worker_is_replaced_and_the_account_made_once(world: World, team: UUID) -> None:
    held = Held()
    world.proxy.fail("CreateAccount", held)
    async with worker_process(world.settings) as process:
        account_id, setup_id = await world.request("Killed worker", team)
        async with asyncio.timeout(20):
            await held.reached.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    held.release()
    assert (await world.account(account_id)).aws_account_id is None
    # As if ten seconds had passed: the dead worker's lease has run out.
    await world.make_due(setup_id)
    async with working(world.settings):
        await world.until(setup_id, DONE)
    account = await world.account(account_id)
    assert await world.aws_accounts(account.email) == [account.aws_account_id]
    assert world.proxy.calls["CreateAccount"] == 1


async def test_a_worker_that_is_told_to_stop_gives_its_setups_back(world: World, team: UUID) -> None:
    held = Held()
    world.proxy.fail("CreateRole", held)
    async with worker_process(world.settings) as process:
        _, setup_id = await world.request("Stopped worker", team)
        async with asyncio.timeout(20):
            await held.reached.wait()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    held.release()
    setup = await world.setup_of_id(setup_id)
    assert (setup.status, setup.lease_until) == (SetupStatus.RUNNING, None)
    async with working(world.settings):
        await world.until(setup_id, DONE, seconds=5)


async def test_an_idle_worker_stops_at_once(world: World) -> None:
    async with worker_process(world.settings) as process:
        assert process.stderr is not None
        while b"at work" not in await process.stderr.readline():
            pass
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert time.monotonic() - before < 3
        assert b"Traceback" not in await process.stderr.read()


async def test_the_worker_outlives_redis(world: World, team: UUID, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(world.settings.require("redis_url"))
    await gate.open()
    async with working(replace(world.settings, redis_url=gate.url)):
        _, before = await world.request("Before the outage", team)
        await world.until(before, DONE)
        await gate.shut()
        _, during = await world.request("During the outage", team)
        async with asyncio.timeout(20):
            while "No jobs are taken" not in caplog.text or "Jobs wait in the outbox" not in caplog.text:
                await asyncio.sleep(0.05)
        assert (await world.setup_of_id(during)).status is SetupStatus.PENDING
        await gate.open()
        await world.until(during, DONE)
        await gate.shut()
    lines = [record for record in caplog.records if record.levelname == "WARNING" and "No jobs" in record.getMessage()]
    assert len(lines) <= 2


async def test_the_worker_outlives_postgresql(world: World, team: UUID, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(world.settings.require("worker_database_url"))
    await gate.open()
    held = Held()
    world.proxy.fail("CreateRole", held)
    async with working(replace(world.settings, worker_database_url=gate.url)):
        _, setup_id = await world.request("PostgreSQL away", team)
        async with asyncio.timeout(20):
            await held.reached.wait()
        await gate.shut()
        held.release()
        async with asyncio.timeout(20):
            while "Nothing is swept" not in caplog.text or "stopped for now" not in caplog.text:
                await asyncio.sleep(0.05)
        await gate.open()
        await world.make_due(setup_id)
        await world.until(setup_id, DONE)
        await gate.shut()
    assert {stage.status for stage in (await world.stages(setup_id)).values()} == {StageStatus.COMPLETED}
    assert "Traceback" not in caplog.text
