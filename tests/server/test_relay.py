"""The relay: outbox rows become jobs once Redis takes them, through outages of either side."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID, uuid4

import pytest
from arq.connections import ArqRedis
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from server.config import Settings
from server.database import create_engine, transaction
from server.jobs import Job, Outbox, enqueue
from server.relay import BATCH, connect, relay, send_batch
from tests.server.fixtures import Tenant, engine, new_tenant, owner, settings, tenant, worker_engine
from tests.server.tunnel import tunnel
from tests.server.waiting import until

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]


@pytest.fixture
def redis_url(settings: Settings) -> str:
    """A database of Redis that no other test uses."""
    return settings.require("redis_url").rsplit("/", 1)[0] + "/5"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    client = connect(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture(autouse=True)
async def empty_outbox(worker_engine: AsyncEngine) -> None:
    async with transaction(worker_engine) as session:
        await session.execute(Outbox.__table__.delete())  # type: ignore[attr-defined]


async def leave_work(engine: AsyncEngine, tenant: Tenant, jobs: int = 1) -> list[UUID]:
    arguments = [uuid4() for _ in range(jobs)]
    async with transaction(engine, tenant.tenancy_id) as session:
        for argument in arguments:
            await enqueue(session, tenant.tenancy_id, Job.RUN_SETUP, argument)
    return arguments


async def left(engine: AsyncEngine) -> int:
    async with transaction(engine) as session:
        return int(await session.scalar(select(func.count()).select_from(Outbox)) or 0)


async def sent(redis: ArqRedis, jobs: int, *, within: float = 5) -> list[tuple[str, tuple[str, ...]]]:
    async def arrived() -> bool:
        return len(await redis.queued_jobs()) >= jobs

    await until(arrived, within=within)
    return [(job.function, tuple(job.args)) for job in await redis.queued_jobs()]


@asynccontextmanager
async def relaying(engine: AsyncEngine, redis: ArqRedis) -> AsyncIterator[asyncio.Event]:
    wake = asyncio.Event()
    task = asyncio.create_task(relay(engine, redis, wake))
    yield wake
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_server_s_role_relays_every_tenancy_in_order(
    engine: AsyncEngine, worker_engine: AsyncEngine, redis: ArqRedis, tenant: Tenant
) -> None:
    arguments = await leave_work(engine, tenant, BATCH + 3)
    assert [await send_batch(engine, redis) for _ in range(3)] == [BATCH, 3, 0]
    assert await left(worker_engine) == 0
    jobs = await sent(redis, BATCH + 3)
    assert set(jobs) == {("run_setup", (str(argument),)) for argument in arguments}
    raw = await redis.get(f"arq:job:run_setup:{arguments[0]}:0")
    assert raw.startswith(b"{"), "jobs are JSON"


async def test_a_job_that_is_queued_already_counts_as_sent(
    engine: AsyncEngine, redis: ArqRedis, tenant: Tenant
) -> None:
    (argument,) = await leave_work(engine, tenant)
    assert await send_batch(engine, redis) == 1
    async with transaction(engine, tenant.tenancy_id) as session:
        await enqueue(session, tenant.tenancy_id, Job.RUN_SETUP, argument)
    assert await send_batch(engine, redis) == 1
    assert len(await redis.queued_jobs()) == 1


async def test_relays_side_by_side_send_each_row_once(
    engine: AsyncEngine, worker_engine: AsyncEngine, redis: ArqRedis, tenant: Tenant
) -> None:
    await leave_work(engine, tenant, 3 * BATCH)
    counts = await asyncio.gather(*(send_batch(engine, redis) for _ in range(3)))
    while await left(worker_engine):
        counts.append(await send_batch(engine, redis))
    assert sum(counts) == 3 * BATCH


async def test_it_wakes_at_once_and_ticks_without(engine: AsyncEngine, redis: ArqRedis, tenant: Tenant) -> None:
    async with relaying(engine, redis) as wake:
        await leave_work(engine, tenant)
        await sent(redis, 1, within=3)
        await leave_work(engine, tenant)
        wake.set()
        await sent(redis, 2, within=0.9)


async def test_rows_wait_for_redis(
    redis_url: str, engine: AsyncEngine, redis: ArqRedis, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server.relay")

    async def logged() -> bool:
        return bool(caplog.records)

    async with tunnel(redis_url) as way:
        through = connect(way.url)
        async with relaying(engine, through) as wake:
            await leave_work(engine, tenant)
            wake.set()
            await sent(redis, 1)
            await way.down()
            await leave_work(engine, tenant)
            wake.set()
            await until(logged)
            assert len(await redis.queued_jobs()) == 1
            await way.up()
            await sent(redis, 2)
            wake.set()
            await asyncio.sleep(0.05)
        await through.aclose()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_it_outlives_postgresql(
    settings: Settings, engine: AsyncEngine, redis: ArqRedis, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server.relay")

    async def logged() -> bool:
        return bool(caplog.records)

    async with tunnel(settings.require("database_url")) as way:
        through = create_engine(way.url)
        async with relaying(through, redis) as wake:
            await leave_work(engine, tenant)
            wake.set()
            await sent(redis, 1)
            await way.down()
            await leave_work(engine, tenant)
            wake.set()
            await until(logged)
            await way.up()
            await sent(redis, 2)
        await through.dispose()
    assert caplog.records[0].levelname == "WARNING"
    assert caplog.records[0].exc_info is None
