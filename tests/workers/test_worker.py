"""The whole worker: as a process that is stopped and killed, and while Redis or PostgreSQL is away."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from server.accounts.models import AccountStatus
from server.assurance.models import SetupStatus, StageStatus
from server.config import Settings
from server.errors import ConfigurationError
from server.jobs import Job
from server.relay import connect
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


class Heard(logging.Handler):
    """Waits for words in the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self._more.set()

    async def __call__(self, *words: str) -> None:
        async with asyncio.timeout(20):
            while not all(any(word in line for line in self.lines) for word in words):
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[Heard]:
    caplog.set_level(logging.INFO)
    handler = Heard()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


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


async def says(process: asyncio.subprocess.Process, words: str) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while words.encode() not in await process.stderr.readline():
            pass


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
            account = await world.account(account_id)
            assert account.status is AccountStatus.ACTIVE
            assert await world.aws_accounts(account.email) == [account.aws_account_id]


async def test_a_throttled_setup_goes_on_close_to_its_time(world: World, team: UUID) -> None:
    world.proxy.fail("MoveAccount", refuse("ConcurrentModificationException"))
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
        await says(process, "the worker stops")
        held.release()
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    stages = await world.stages(setup_id)
    assert (stages["iam_baseline"].status, stages["instance_metadata"].status) == ("COMPLETED", "PENDING")
    setup = await world.setup_of_id(setup_id)
    assert (setup.status, setup.lease_until) == (SetupStatus.RUNNING, None)
    async with working(world.settings):
        await world.until(setup_id, DONE, seconds=5)


async def test_an_idle_worker_stops_at_once(world: World) -> None:
    async with worker_process(world.settings) as process:
        await says(process, "the worker is at work")
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert time.monotonic() - before < 3
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.read()


async def test_a_worker_without_tables_says_so(world: World, empty: Settings) -> None:
    async with worker_process(empty) as process:
        _, told = await process.communicate()
    assert process.returncode == 1
    assert "run `freehold migrate` first" in told.decode()


async def test_a_worker_without_its_settings_does_not_start(world: World) -> None:
    with pytest.raises(ConfigurationError, match="FREEHOLD_REDIS_URL"):
        async with working(replace(world.settings, redis_url=None)):
            raise AssertionError("started")


async def test_the_worker_outlives_redis(world: World, team: UUID, heard: Heard) -> None:
    gate = Gate(world.settings.require("redis_url"))
    await gate.open()
    async with working(replace(world.settings, redis_url=gate.url)):
        _, before = await world.request("Before the outage", team)
        await world.until(before, DONE)
        await gate.shut()
        _, during = await world.request("During the outage", team)
        await heard("Nothing wakes this worker", "Workers are not woken")
        await gate.open()
        await world.until(during, DONE)
        await gate.shut()
    assert sum(": over" not in line for line in heard.lines if "Nothing wakes this worker" in line) <= 2


async def test_a_wake_up_that_finds_no_database_is_left_to_the_sweeper(world: World, team: UUID, heard: Heard) -> None:
    gate = Gate(world.settings.require("worker_database_url"))
    await gate.open()
    queue = connect(world.settings.require("redis_url"))
    async with working(replace(world.settings, worker_database_url=gate.url)):
        await gate.shut()
        for _ in range(3):
            await queue.enqueue_job(Job.RUN_SETUP, str(uuid4()))
        await heard("Wake-ups do nothing, and the worker looks for work by itself: PostgreSQL does not answer")
        await gate.open()
    await gate.shut()
    await queue.aclose()
    assert sum("Wake-ups do nothing" in line for line in heard.lines) == 1
    assert not any("Traceback" in line for line in heard.lines)


async def test_the_worker_outlives_postgresql(world: World, team: UUID, heard: Heard) -> None:
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
        await heard("This worker cannot look for work", "stops for now")
        await gate.open()
        await world.make_due(setup_id)
        await world.until(setup_id, DONE)
        await gate.shut()
    assert {stage.status for stage in (await world.stages(setup_id)).values()} == {StageStatus.COMPLETED}
    assert not any("Traceback" in line for line in heard.lines)
