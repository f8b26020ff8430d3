"""The worker process: claims setups, walks their stages, and keeps the wake-ups going."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from arq.typing import StartupShutdown, WorkerCoroutine
from arq.worker import Worker, func
from redis.exceptions import RedisError

from server.config import Settings
from server.database import create_engine
from server.jobs import Job
from server.logs import configure_logging
from server.outages import Outage
from server.relay import connect, decode_job, encode_job, redis_settings, relay
from workers import jobs
from workers.assurance.runner import Runner
from workers.assurance.stage import Stage
from workers.assurance.stages import STAGES
from workers.aws.session import Aws
from workers.catalogue import declare_stages
from workers.executor import Executor
from workers.listener import listen
from workers.sweeper import sweep_forever

# Jobs return at once, so few run at a time; a killed worker's job blocks its own id for this long and 10 s more.
MAX_JOBS = 20
JOB_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.05

FUNCTIONS = {Job.RUN_SETUP: jobs.run_setup, Job.CREATE_ORGANIZATIONAL_UNIT: jobs.create_organizational_unit}

logger = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT. Raises ConfigurationError for a setting that is missing."""
    asyncio.run(work_until_stopped(settings))


async def work_until_stopped(settings: Settings) -> None:
    """Work until a signal asks to stop; then leases are given back, within 10 seconds."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with working(settings):
        logger.info("the worker is at work")
        await stopped.wait()
        logger.info("the worker stops")


@asynccontextmanager
async def working(settings: Settings, stages: Sequence[Stage] = STAGES) -> AsyncIterator[jobs.Resources]:
    """A worker at work in this process for as long as the block runs."""
    redis_url, database_url = settings.require("redis_url"), settings.require("worker_database_url")
    # `freehold worker --check` knows a worker by this name.
    engine = create_engine(database_url, pool_size=20, name=f"freehold-worker:{socket.gethostname()}")
    queue = connect(redis_url)
    try:
        async with Aws(settings) as aws:
            await declare_stages(engine, stages)
            await aws.warm_up()
            executor = Executor(engine, settings.concurrent_setups, Runner(engine, aws, stages).run)
            resources = jobs.Resources(engine, aws, executor)
            wake = asyncio.Event()
            loops = [
                asyncio.create_task(each)
                for each in (
                    take_jobs(redis_url, resources),
                    relay(engine, queue, wake),
                    listen(database_url, wake),
                    sweep_forever(engine),
                )
            ]
            try:
                yield resources
            finally:
                # First the source of new work, then the work; the relay still sends what is given back.
                await _stop(loops[0])
                await executor.close()
                wake.set()
                for loop in loops[1:]:
                    await _stop(loop)
    finally:
        await queue.aclose()
        await engine.dispose()


async def take_jobs(redis_url: str, resources: jobs.Resources) -> None:
    """Run arq until cancelled. arq ends when Redis stays away for some seconds: it is started anew until it is back."""
    logging.getLogger("arq.worker").setLevel(logging.WARNING)
    logging.getLogger("arq.connections").setLevel(logging.ERROR)
    outage = Outage(logger, "No jobs are taken")
    while True:
        worker = Worker(
            functions=[func(cast("WorkerCoroutine", each), name=name) for name, each in FUNCTIONS.items()],
            redis_settings=redis_settings(redis_url),
            ctx={"resources": resources},
            handle_signals=False,
            max_jobs=MAX_JOBS,
            job_timeout=JOB_TIMEOUT_SECONDS,
            keep_result=0,
            poll_delay=POLL_SECONDS,
            job_serializer=encode_job,
            job_deserializer=decode_job,
            log_results=False,
        )
        worker.on_startup = _note_end(outage)
        try:
            await worker.async_run()
        except (RedisError, OSError) as error:
            await asyncio.sleep(outage.begin(error))
        finally:
            await _close(worker)


def _note_end(outage: Outage) -> StartupShutdown:
    async def started(ctx: dict[Any, Any]) -> None:
        outage.end()

    return started


async def _close(worker: Worker) -> None:
    # Jobs of an arq that has lost Redis, or that is stopped, end with its error or cancelled.
    with suppress(RedisError, OSError, asyncio.CancelledError):
        await worker.close()


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    environment = Settings.from_environment()
    configure_logging(environment.log_level)
    run(environment)
