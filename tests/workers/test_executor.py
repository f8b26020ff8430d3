import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from server.assurance.models import Setup
from server.leases import LeaseLost
from tests.workers.world import World
from workers.executor import Executor, Interrupted
from workers.lease import Lease
from workers.setups import SETUP


class Work:
    """Runs that begin when they are told and end when the test lets them."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[UUID] = asyncio.Queue()
        self.ends: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def __call__(self, lease: Lease[Setup]) -> None:
        self.begun.put_nowait(lease.row_id)
        end = await self.ends.get()
        if end is not None:
            raise end


@asynccontextmanager
async def executing(
    world: World, capacity: int, work: Callable[[Lease[Setup]], Awaitable[None]]
) -> AsyncIterator[Executor[Setup]]:
    executor = Executor(world.engine, SETUP, capacity, work)
    yield executor
    await executor.close()


@pytest.fixture
async def setups(world: World, team: UUID) -> list[UUID]:
    return [(await world.request(f"Executed {uuid4().hex}", team))[1] for _ in range(3)]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs that the test leaves unfinished."""
    monkeypatch.setattr("workers.executor.FINISH_SECONDS", 0.1)


async def test_setups_run_side_by_side_up_to_the_capacity(world: World, setups: list[UUID]) -> None:
    work = Work()
    async with executing(world, 2, work) as executor:
        for setup_id in setups:
            await executor.offer(setup_id)
        assert {await work.begun.get(), await work.begun.get()} == set(setups[:2])
        assert work.begun.empty()
        assert (await world.setup_of_id(setups[2])).lease_until is None
        # A slot falls free: the setup that found none is claimed without another wake-up.
        work.ends.put_nowait(None)
        async with asyncio.timeout(5):
            assert await work.begun.get() == setups[2]


async def test_a_setup_that_steps_aside_leaves_its_slot_to_another_and_has_one_again_at_once(
    world: World, setups: list[UUID]
) -> None:
    work, back = Work(), asyncio.Event()

    async def run(lease: Lease[Setup]) -> None:
        if lease.row_id == setups[0]:
            async with lease.aside():
                await back.wait()
        await work(lease)

    async with executing(world, 1, run) as executor:
        for setup_id in setups:
            await executor.offer(setup_id)
        assert await work.begun.get() == setups[1]
        assert executor.free == 0
        back.set()
        assert await work.begun.get() == setups[0]
        assert (await world.setup_of_id(setups[2])).lease_until is None
        # Only with the end of both is a slot free.
        work.ends.put_nowait(None)
        work.ends.put_nowait(None)
        async with asyncio.timeout(5):
            assert await work.begun.get() == setups[2]


async def test_a_setup_that_was_offered_twice_runs_once(world: World, setups: list[UUID]) -> None:
    work = Work()
    async with executing(world, 2, work) as executor:
        await asyncio.gather(*(executor.offer(setups[0]) for _ in range(2)))
        await work.begun.get()
        await executor.offer(setups[1])
        assert await work.begun.get() == setups[1]


async def test_shutting_down_gives_the_leases_back(world: World, setups: list[UUID]) -> None:
    work = Work()
    async with executing(world, 2, work) as executor:
        await executor.offer(setups[0])
        await work.begun.get()
    setup = await world.setup_of_id(setups[0])
    assert (setup.lease_until, setup.lease_owner) == (None, None)
    await executor.offer(setups[1])
    assert (await world.setup_of_id(setups[1])).lease_token == 0


@pytest.mark.parametrize("end", [LeaseLost("lost"), ZeroDivisionError("unexpected"), OSError("no database")])
async def test_a_run_that_breaks_leaves_its_lease_to_run_out(
    world: World, setups: list[UUID], end: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    async with executing(world, 1, work) as executor:
        work.ends.put_nowait(end)
        await executor.offer(setups[0])
        await executor.idle()
    assert (await world.setup_of_id(setups[0])).lease_until is not None
    assert str(end) in caplog.text
    assert ("Traceback" in caplog.text) is isinstance(end, ZeroDivisionError)


async def test_an_interrupted_run_gives_its_lease_back(world: World, setups: list[UUID]) -> None:
    work = Work()
    async with executing(world, 1, work) as executor:
        work.ends.put_nowait(Interrupted())
        await executor.offer(setups[0])
        await executor.idle()
    assert (await world.setup_of_id(setups[0])).lease_until is None


async def test_work_stops_when_the_lease_is_lost(
    world: World, setups: list[UUID], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workers.lease.HEARTBEAT_SECONDS", 0.05)
    work = Work()
    async with executing(world, 1, work) as executor:
        await executor.offer(setups[0])
        await work.begun.get()
        await world.make_due(setups[0])
        await world.claim(setups[0])
        await executor.idle()
    assert "this worker leaves it" in caplog.text
    assert (await world.setup_of_id(setups[0])).lease_token == 2
