"""What the log says of an outage: who is away and why, in words, and not the same again each second."""

import logging
from dataclasses import replace

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.config import Settings
from server.database import create_engine, transaction
from server.embedded.ports import free_port
from server.graphql.errors import ErrorCode, describe_fault
from server.outages import Outage, Reports, cause_of
from server.roles import DatabaseRefused
from tests.server.fixtures import (
    Tenant,
    engine,
    new_tenant,
    owner,
    running,
    settings,
    tenant,
    until_ready,
    worker_engine,
)
from tests.server.tunnel import tunnel
from tests.server.waiting import until

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]

logger = logging.getLogger("outages")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "PostgreSQL does not answer: nothing came in time"),
        (ConnectionRefusedError(111, "Connection refused"), "PostgreSQL does not answer: Connection refused"),
        (
            asyncpg.CannotConnectNowError("the database system is starting up"),
            "PostgreSQL does not answer: the database system is starting up",
        ),
        (
            asyncpg.TooManyConnectionsError("sorry, too many clients already"),
            "PostgreSQL does not answer: sorry, too many clients already",
        ),
        (PoolTimeoutError("..."), "PostgreSQL does not answer: every connection of this process to it is in use"),
        (DatabaseRefused("PostgreSQL refuses."), "PostgreSQL refuses"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_is_told_in_words(error: Exception, expected: str) -> None:
    assert cause_of(error) == expected


async def test_a_statement_that_failed_is_told_without_its_values(settings: Settings) -> None:
    engine = create_engine(settings.require("worker_database_url"))
    try:
        with pytest.raises(Exception, match="hunter2") as failed:
            async with transaction(engine) as session:
                await session.execute(text("SELECT 1 / 0 WHERE :value <> ''"), {"value": "hunter2"})
    finally:
        await engine.dispose()
    assert cause_of(failed.value) == "DivisionByZeroError: division by zero"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1:{port}", "Valkey does not answer: Error 111 connecting to 127.0.0.1:{port}."),
        ("{url}", "Valkey refuses the user or the password in FREEHOLD_REDIS_URL: invalid username-password pair"),
    ],
    ids=["away", "password"],
)
async def test_valkey_is_told_from_postgresql(settings: Settings, url: str, expected: str) -> None:
    port, wrong = free_port(), settings.require("redis_url").replace("redis://:", "redis://:wrong")
    client = Redis.from_url(url.format(port=port, url=wrong))
    try:
        with pytest.raises(Exception) as failed:
            await client.ping()
    finally:
        await client.aclose()
    assert cause_of(failed.value).startswith(expected.format(port=port))


def test_an_outage_is_told_once_for_each_kind_of_cause_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage(logger, "Nothing is read")
    for _ in range(3):
        outage.begin(TimeoutError())
        outage.begin(ConnectionRefusedError(111, "Connection refused"))
        outage.begin(DatabaseRefused("PostgreSQL refuses the password."))
    outage.end()
    outage.end()
    assert [record.getMessage() for record in caplog.records] == [
        "Nothing is read: PostgreSQL does not answer: nothing came in time",
        "Nothing is read: PostgreSQL refuses the password",
        "Nothing is read: over after 0 s",
    ]


def test_what_many_meet_is_told_at_times_with_how_many_there_were(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    reports = Reports(logger, "Requests are refused", seconds=30, clock=lambda: now)
    for _ in range(5):
        reports.tell(TimeoutError())
    now += 31
    reports.tell(TimeoutError())
    reports.tell(ConnectionRefusedError(111, "Connection refused"))
    assert [record.getMessage() for record in caplog.records] == [
        "Requests are refused: PostgreSQL does not answer: nothing came in time",
        "Requests are refused: PostgreSQL does not answer: nothing came in time (and 4 more since the last line)",
    ]


async def test_a_server_whose_services_are_away_does_not_repeat_itself(
    settings: Settings, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    async with tunnel(settings.require("database_url")) as database, tunnel(settings.require("redis_url")) as redis:
        through = replace(settings, database_url=database.url, redis_url=redis.url)
        async with running(through) as client:
            await until_ready(client)
            await database.down()
            await redis.down()
            caplog.clear()
            for _ in range(20):
                response = await client.post("/graphql", json={"query": "{ viewer { name } }"}, headers=tenant.headers)
                assert response.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
                assert (await client.get("/readyz")).status_code == 503

            # The hub, the relay, /readyz twice and the requests, which may have been told of before.
            async def all_told() -> bool:
                return len(caplog.records) >= 4

            await until(all_told, within=10)
            told = [record.getMessage() for record in caplog.records]
            assert len(told) <= 5, told
            assert all("PostgreSQL" in line or "Valkey" in line for line in told), told
            assert not [line for line in told if "Error:" in line], told


def test_a_request_in_an_outage_is_unavailable() -> None:
    assert describe_fault(TimeoutError())[0] is ErrorCode.UNAVAILABLE
