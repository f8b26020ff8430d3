"""Limits that a worker reads from AWS: when, what becomes of them, and what when AWS does not answer."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, update

from server.database import transaction
from server.quotas.models import Quota, QuotaCode, QuotaReading
from server.quotas.service import read_limit, set_quota
from tests.workers.proxies import REQUEST_ID, answer, lose_answer, refuse
from tests.workers.world import World
from workers.main import working
from workers.quotas import PERMISSIONS, read_due_quotas

DOCUMENTED = {
    QuotaCode.ORGANIZATIONAL_UNITS: 2_000,
    QuotaCode.POLICIES: 10_000,
    QuotaCode.POLICIES_PER_TARGET: 10,
    QuotaCode.POLICY_SIZE: 10_240,
}


async def forget(world: World) -> None:
    async with transaction(world.engine) as session:
        for table in (Quota, QuotaReading):
            await session.execute(delete(table).where(table.tenancy_id == world.tenancy_id))


@pytest.fixture
async def unread(world: World) -> AsyncIterator[World]:
    """The tenancy as before any of its limits were read or set."""
    await forget(world)
    yield world
    await forget(world)


async def limits(world: World) -> dict[QuotaCode, int | None]:
    async with transaction(world.engine) as session:
        return {code: await read_limit(session, world.tenancy_id, code) for code in QuotaCode}


async def due_in(world: World) -> timedelta:
    async with transaction(world.engine) as session:
        return (await session.get_one(QuotaReading, world.tenancy_id)).next_at - datetime.now(UTC)


async def make_due(world: World) -> None:
    async with transaction(world.engine) as session:
        due = update(QuotaReading).where(QuotaReading.tenancy_id == world.tenancy_id).values(next_at=func.now())
        await session.execute(due)


async def read(world: World) -> list[str]:
    """Read what is due; the IAM actions of the calls that took."""
    with world.recording("quotas") as actions:
        await read_due_quotas(world.engine, world.aws)
    return actions


def told(**values: float) -> dict[str, object]:
    return {"Quotas": [{"QuotaName": name.replace("_", " "), "Value": value} for name, value in values.items()]}


async def test_what_aws_tells_is_kept_and_asked_for_again_in_an_hour(unread: World) -> None:
    assert await limits(unread) == {QuotaCode.ACCOUNTS: None, **DOCUMENTED}
    assert await read(unread) == list(PERMISSIONS)
    assert await limits(unread) == {QuotaCode.ACCOUNTS: 1_000, **DOCUMENTED}
    assert timedelta(minutes=59) < await due_in(unread) <= timedelta(hours=1)
    assert await read(unread) == []


async def test_of_workers_that_look_at_once_one_reads(unread: World) -> None:
    await read(unread)
    await make_due(unread)
    unread.proxy.calls.clear()
    await asyncio.gather(*(read_due_quotas(unread.engine, unread.aws) for _ in range(5)))
    assert unread.proxy.calls["ListServiceQuotas"] == 1


async def test_limits_follow_aws_and_what_it_no_longer_tells_is_the_documented_one(unread: World) -> None:
    first = told(Maximum_number_of_accounts=20, Service_control_policies_in_an_organization=5_000, Something_else=1)
    unread.proxy.fail("ListServiceQuotas", answer(first), answer(told(Default_maximum_number_of_accounts=30)))
    await read(unread)
    known = await limits(unread)
    assert (known[QuotaCode.ACCOUNTS], known[QuotaCode.POLICIES]) == (20, 5_000)
    await make_due(unread)
    await read(unread)
    assert await limits(unread) == {QuotaCode.ACCOUNTS: 30, **DOCUMENTED}


async def test_a_limit_that_is_set_stays_above_what_aws_tells(unread: World) -> None:
    async with transaction(unread.engine) as session:
        await set_quota(session, unread.tenancy_id, QuotaCode.ACCOUNTS, 4_000)
    await read(unread)
    assert (await limits(unread))[QuotaCode.ACCOUNTS] == 4_000
    async with transaction(unread.engine) as session:
        await set_quota(session, unread.tenancy_id, QuotaCode.ACCOUNTS, None)
    assert (await limits(unread))[QuotaCode.ACCOUNTS] == 1_000


async def test_what_aws_refuses_is_told_and_tried_again_and_changes_nothing(
    unread: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="workers.quotas")
    await read(unread)
    before = await limits(unread)
    for fault in (refuse("AccessDeniedException", 403), lose_answer):
        await make_due(unread)
        unread.proxy.fail("ListServiceQuotas", *[fault] * 3)
        await read(unread)
        assert await limits(unread) == before
        assert timedelta(minutes=4) < await due_in(unread) <= timedelta(minutes=5)
        unread.proxy.reset()
    assert "its quotas were not read: AccessDeniedException: AWS does not allow Freehold to call" in caplog.messages[0]
    assert f"(AWS request {REQUEST_ID})" in caplog.messages[0]
    assert len(caplog.messages) == 2


async def test_a_worker_reads_them_by_itself(unread: World) -> None:
    async with working(unread.settings), asyncio.timeout(20):
        while (await limits(unread))[QuotaCode.ACCOUNTS] is None:  # noqa: ASYNC110 - the worker tells nobody
            await asyncio.sleep(0.05)
