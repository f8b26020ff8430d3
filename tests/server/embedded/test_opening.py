"""When `freehold up` calls the worker ready: when the one that it has started is at work."""

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from server.config import PREFIX, START, Settings
from server.database import create_engine
from server.embedded.opening import worker_is_ready
from server.embedded.ports import free_port
from tests.running import CLEAN, FREEHOLD
from tests.server.waiting import until
from workers.assurance.stages import STAGES
from workers.catalogue import declare_stages


async def test_a_worker_is_ready_when_the_one_that_was_started_is_at_work(migrated: Settings) -> None:
    engine = create_engine(migrated.require("worker_database_url"))
    # As a worker does that has ended since.
    await declare_stages(engine, STAGES)
    await engine.dispose()
    ready = worker_is_ready(migrated)
    assert not await ready("first")
    names = ("worker_database_url", "redis_url", "aws_endpoint_url")
    environment = CLEAN | {PREFIX + name.upper(): migrated.require(name) for name in names}
    worker = await asyncio.create_subprocess_exec(*FREEHOLD, "worker", env=environment | {START: "first"})
    try:
        await until(lambda: ready("first"), within=60)
        assert not await ready("second")
    finally:
        worker.kill()
        await worker.wait()

    async def gone() -> bool:
        return not await ready("first")

    await until(gone)


async def test_nothing_is_ready_while_postgresql_is_away(migrated: Settings) -> None:
    url = urlsplit(migrated.require("worker_database_url"))
    away = urlunsplit(url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{free_port()}"))
    assert not await worker_is_ready(replace(migrated, worker_database_url=away))("first")
