"""The relay: outbox rows become arq jobs. It runs in every server and every worker; one of them is enough.

Redis may be away: rows stay in the outbox until Redis has taken them.
"""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

from arq.connections import ArqRedis, RedisSettings
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.jobs import Outbox
from server.outages import Outage

BATCH = 50
TICK_SECONDS = 1.0

logger = logging.getLogger(__name__)


def encode_job(job: dict[str, Any]) -> bytes:
    """arq's serializer; its default is pickle, with which whoever writes to Redis runs code in the workers."""
    return json.dumps(job, default=str).encode()


def decode_job(data: bytes) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(data)
    return job


def redis_settings(url: str) -> RedisSettings:
    """How the server and the workers talk to Redis: a broken connection is tried again before anybody hears of it."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_timeout = 2
    settings.retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 3)
    settings.retry_on_error = [RedisConnectionError, RedisTimeoutError]
    return settings


def connect(url: str) -> ArqRedis:
    """A client to enqueue with. Unlike arq's `create_pool` it does not ask whether Redis is there: it may come."""
    settings = redis_settings(url)
    return ArqRedis(
        job_serializer=encode_job,
        job_deserializer=decode_job,
        host=settings.host,
        port=settings.port,
        db=settings.database,
        username=settings.username,
        password=settings.password,
        ssl=settings.ssl,
        encoding="utf8",
        socket_connect_timeout=settings.conn_timeout,
        socket_timeout=5,
        retry=settings.retry,
        retry_on_error=settings.retry_on_error,
    )


async def relay(engine: AsyncEngine, queue: ArqRedis, wake: asyncio.Event) -> None:
    """Send outbox rows to the queue until cancelled: at once when `wake` is set, and every second without it."""
    outage = Outage(logger, "Workers are not woken, and look for work by themselves")
    while True:
        # Cleared before the look, so that a row committed during it is not waited for.
        wake.clear()
        try:
            while await send_batch(engine, queue) == BATCH:
                pass
        except Exception as error:
            # Whatever it was, it is logged there, and the loop must outlive it.
            await asyncio.sleep(outage.begin(error))
        else:
            outage.end()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await wake.wait()


async def send_batch(engine: AsyncEngine, queue: ArqRedis) -> int:
    """Move up to `BATCH` rows to the queue; returns how many. A row goes only when the queue has its job."""
    # In a CTE the rows are locked once; a plain subquery may be run again and lock others.
    oldest = select(Outbox.id).order_by(Outbox.id).limit(BATCH).with_for_update(skip_locked=True).cte("oldest")
    taken = (
        delete(Outbox)
        .where(Outbox.id.in_(select(oldest.c.id)))
        .returning(Outbox.id, Outbox.job, Outbox.argument, Outbox.job_id)
        .execution_options(synchronize_session=False)
    )
    async with transaction(engine) as session:
        rows = (await session.execute(taken)).all()
        for row in sorted(rows, key=lambda row: row.id):
            # None means that a job of this id is queued already, which is as good as sent.
            await queue.enqueue_job(row.job, str(row.argument), _job_id=row.job_id)
    return len(rows)
