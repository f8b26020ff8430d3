"""The worker process: claims setups, walks their stages, and keeps the wake-ups going."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import wraps
from typing import Any, TypeAlias, cast

from arq.connections import ArqRedis
from arq.typing import WorkerCoroutine
from arq.worker import Worker, func
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from server.config import Settings
from server.database import create_engine, transaction
from server.errors import FreeholdError
from server.jobs import Job
from server.logs import configure_logging
from server.loops import stop
from server.outages import Outage, Reports, is_away
from server.policies.comparison import schedule_comparisons
from server.policies.foundation import keep_all_managed
from server.relay import connect, decode_job, encode_job, relay
from server.roles import WORKER, DatabaseRefused, worker_name
from workers import jobs
from workers.account_types.upkeep import UNIT, Units
from workers.assurance.runner import Runner
from workers.assurance.stage import Stage
from workers.assurance.stages import STAGES
from workers.aws.session import Aws
from workers.catalogue import declare_stages
from workers.executor import Executor
from workers.listener import listen
from workers.memory import trim_forever
from workers.policies.comparison import COMPARISON, Comparisons
from workers.policies.rollout import POLICY, Rollouts
from workers.quotas import read_quotas_forever
from workers.setups import SETUP
from workers.sweeper import sweep_forever

# Jobs return at once, so few run at a time; a killed worker's job blocks its own id for this long and 10 s more.
MAX_JOBS = 20
JOB_TIMEOUT_SECONDS = 10
JOB_END_SECONDS = 2
POLL_SECONDS = 0.05
# Longer than a lease: whatever PostgreSQL has not answered by then is somebody else's to do.
COMMAND_SECONDS = 20.0

FUNCTIONS = {
    Job.RUN_SETUP: jobs.run_setup,
    Job.KEEP_ORGANIZATIONAL_UNIT: jobs.keep_organizational_unit,
    Job.ROLL_OUT_POLICY: jobs.roll_out_policy,
    Job.GOVERN_ACCOUNTS: jobs.govern_accounts,
    Job.COMPARE_POLICIES: jobs.compare_policies,
}
# Apart from setups, so that no rollout waits behind fifty of them; AWS takes one change at a time anyway.
CONCURRENT_ROLLOUTS = 10
CONCURRENT_UNITS = 10
# One after the other, so that the calls of all together keep their distance.
CONCURRENT_COMPARISONS = 1

JobFunction: TypeAlias = Callable[[dict[str, Any], str], Awaitable[None]]

logger = logging.getLogger(__name__)
_WAKE_UPS = Reports(logger, "Wake-ups do nothing, and the worker looks for work by itself")


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT. Raises FreeholdError when a setting is missing or the database has no tables."""
    asyncio.run(work_until_stopped(settings))


async def work_until_stopped(settings: Settings) -> None:
    """Work until a signal asks to stop; then leases are given back, within 10 seconds."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    work, waiting = asyncio.create_task(_work(settings)), asyncio.create_task(stopped.wait())
    await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
    if stopped.is_set():
        logger.info("the worker stops")
    waiting.cancel()
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work


async def _work(settings: Settings) -> None:
    async with working(settings):
        logger.info("the worker is at work")
        await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def working(settings: Settings, stages: Sequence[Stage] = STAGES) -> AsyncIterator[jobs.Resources]:
    """A worker at work in this process for as long as the block runs."""
    database_url = settings.require("worker_database_url")
    # `freehold worker --check` knows a worker by this name.
    engine = create_engine(
        database_url,
        WORKER,
        pool_size=20,
        name=worker_name(),
        command_seconds=COMMAND_SECONDS,
    )
    queue = connect(settings.require("redis_url"))
    try:
        async with Aws(settings) as aws:
            every = timedelta(minutes=settings.drift_minutes) if settings.drift_minutes else None
            await _declare(engine, stages, every)
            await aws.warm_up()
            executor = Executor(engine, SETUP, settings.concurrent_setups, Runner(engine, aws, stages).run)
            rollouts = Executor(engine, POLICY, CONCURRENT_ROLLOUTS, Rollouts(engine, aws).run)
            units = Executor(engine, UNIT, CONCURRENT_UNITS, Units(engine, aws).run)
            comparisons = Executor(engine, COMPARISON, CONCURRENT_COMPARISONS, Comparisons(engine, aws, every).run)
            executors: tuple[Executor[Any], ...] = (executor, rollouts, units, comparisons)
            resources = jobs.Resources(engine, aws, executor, rollouts, units, comparisons)
            wake = asyncio.Event()
            loops = [
                asyncio.create_task(each)
                for each in (
                    take_jobs(queue, resources),
                    relay(engine, queue, wake),
                    listen(database_url, wake),
                    sweep_forever(engine, *executors),
                    read_quotas_forever(engine, aws),
                    trim_forever(),
                )
            ]
            try:
                yield resources
            finally:
                # First the source of new work, then the work; the relay still sends what is given back.
                for each in executors:
                    each.wind_down()
                await stop(loops[0])
                await asyncio.gather(*(each.close() for each in executors))
                wake.set()
                for loop in loops[1:]:
                    await stop(loop)
    finally:
        await queue.aclose()
        await engine.dispose()


async def _declare(engine: AsyncEngine, stages: Sequence[Stage], every: timedelta | None) -> None:
    """Write down the stages, the managed policies and when policies are compared, as soon as PostgreSQL is there.

    Raises FreeholdError when its tables are not.
    """
    outage = Outage(logger, "The worker waits for PostgreSQL")
    while True:
        try:
            await declare_stages(engine, stages)
            async with transaction(engine) as session:
                await keep_all_managed(session)
                await schedule_comparisons(session, every)
        except ProgrammingError as error:
            raise FreeholdError("the database has no tables, or old ones; run `freehold migrate` first") from error
        except DatabaseRefused:
            # Once at work, that would be an outage. Whoever starts a worker is there to put it right.
            raise
        except Exception as error:
            if not is_away(error):
                raise
            await asyncio.sleep(outage.begin(error))
        else:
            outage.end()
            return


async def take_jobs(queue: ArqRedis, resources: jobs.Resources) -> None:
    """Run arq until cancelled. arq ends when Redis stays away for a second: it is started anew until Redis is back."""
    # One line for each job, and others that only repeat what is logged here.
    logging.getLogger("arq.worker").setLevel(logging.WARNING)
    outage = Outage(logger, "Nothing wakes this worker, and it looks for work by itself")

    async def begun(ctx: dict[Any, Any]) -> None:
        outage.end()

    while True:
        worker = Worker(
            functions=[
                func(cast("WorkerCoroutine", left_to_the_sweeper(each)), name=name) for name, each in FUNCTIONS.items()
            ],
            redis_pool=queue,
            ctx={"resources": resources},
            on_startup=begun,
            handle_signals=False,
            max_jobs=MAX_JOBS,
            job_timeout=JOB_TIMEOUT_SECONDS,
            keep_result=0,
            poll_delay=POLL_SECONDS,
            job_serializer=encode_job,
            job_deserializer=decode_job,
            log_results=False,
        )
        try:
            await worker.async_run()
        except Exception as error:
            # Whatever it was, it is logged there, and the loop must outlive it.
            await asyncio.sleep(outage.begin(error))
        finally:
            await _finish_jobs(worker)


def left_to_the_sweeper(job: JobFunction) -> JobFunction:
    """The job, which ends where PostgreSQL is away: what it was to wake is then found without it."""

    @wraps(job)
    async def left(ctx: dict[str, Any], argument: str) -> None:
        try:
            await job(ctx, argument)
        except Exception as error:
            if not is_away(error):
                raise
            _WAKE_UPS.tell(error)

    return left


async def _finish_jobs(worker: Worker) -> None:
    """Let arq's jobs end, which takes them moments. (`Worker.close` would close the connections of the relay too.)"""
    tasks = [*worker.tasks.values()]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, timeout=JOB_END_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        # What went wrong in a job is logged by arq, and a job is only a wake-up.
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    try:
        environment = Settings.from_environment()
        configure_logging(environment.log_level)
        run(environment)
    except FreeholdError as error:
        sys.exit(f"freehold: {error}")
