"""The hub: nobody sleeps through an event, whatever happens to its connection."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from server.config import Settings
from server.graphql.hub import Hub
from server.jobs import OUTBOX_CHANNEL
from server.outages import Outage
from tests.server.fixtures import NewTenant, Owner, Tenant, write_event
from tests.server.tunnel import tunnel
from tests.server.waiting import until

LISTENERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'freehold-hub' AND datname = current_database()"


async def listeners(owner: Owner) -> set[int]:
    return {row["pid"] for row in await owner.fetch(LISTENERS)}


@pytest.fixture
async def others(owner: Owner) -> set[int]:
    """The listeners of before: PostgreSQL may show one for a while after its hub has closed."""
    return await listeners(owner)


@pytest.fixture
async def slow_hub(settings: Settings, others: set[int]) -> AsyncIterator[Hub]:
    """A hub that never polls, so that only notifications and connections wake anybody."""
    hub = Hub(settings.require("database_url"), poll_seconds=3600)
    await hub.open()
    yield hub
    await hub.close()


async def soon(waiting: "asyncio.Future[None] | asyncio.Task[None]", seconds: float = 5) -> None:
    await asyncio.wait_for(waiting, seconds)


async def polls(hub: Hub, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Wait until the hub has polled so often."""
    polled = asyncio.Semaphore(0)
    poll = hub._poll

    async def counted(connection: Any) -> None:
        await poll(connection)
        polled.release()

    monkeypatch.setattr(hub, "_poll", counted)
    async with asyncio.timeout(5):
        for _ in range(number):
            await polled.acquire()
    monkeypatch.setattr(hub, "_poll", poll)


async def listening(owner: Owner, others: set[int]) -> int:
    """The listener that is none of the others, once there is one."""

    async def found() -> bool:
        return len(await listeners(owner) - others) == 1

    await until(found)
    (process,) = await listeners(owner) - others
    return process


async def terminate(settings: Settings, process: int) -> None:
    """Kill a backend of the server's role, as that role."""
    same_role = await asyncpg.connect(settings.require("database_url"))
    await same_role.execute("SELECT pg_terminate_backend($1)", process)
    await same_role.close()


async def test_an_event_wakes_the_readers_of_its_account_alone(
    slow_hub: Hub, owner: Owner, new_tenant: NewTenant
) -> None:
    one, other = await new_tenant(), await new_tenant()
    async with (
        slow_hub.subscription(one.tenancy_id, one.account_id) as first,
        slow_hub.subscription(one.tenancy_id, one.account_id) as second,
        slow_hub.subscription(other.tenancy_id, other.account_id) as elsewhere,
    ):
        await slow_hub.connected.wait()
        for reader in (first, second, elsewhere):
            await reader.wait()
        asleep = asyncio.ensure_future(elsewhere.wait())
        await write_event(owner, one)
        await soon(asyncio.gather(first.wait(), second.wait()))  # type: ignore[arg-type]
        assert not asleep.done()
        asleep.cancel()


async def test_an_event_wakes_who_follows_its_tenancy(slow_hub: Hub, owner: Owner, new_tenant: NewTenant) -> None:
    one, other = await new_tenant(), await new_tenant()
    async with (
        slow_hub.subscription(one.tenancy_id, None) as reader,
        slow_hub.subscription(other.tenancy_id, None) as elsewhere,
    ):
        await slow_hub.connected.wait()
        for each in (reader, elsewhere):
            await each.wait()
        asleep = asyncio.ensure_future(elsewhere.wait())
        await write_event(owner, one)
        await soon(asyncio.ensure_future(reader.wait()))
        assert not asleep.done()
        asleep.cancel()
    assert slow_hub.readers == 0


async def test_the_first_wait_returns_at_once_and_a_hint_during_a_read_is_kept(slow_hub: Hub, tenant: Tenant) -> None:
    async with slow_hub.subscription(tenant.tenancy_id, tenant.account_id) as reader:
        await soon(asyncio.ensure_future(reader.wait()))
        reader.wake()  # comes while the caller reads
        await soon(asyncio.ensure_future(reader.wait()))


async def test_everybody_wakes_after_a_new_connection(
    slow_hub: Hub,
    settings: Settings,
    owner: Owner,
    tenant: Tenant,
    others: set[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "server.graphql.hub")
    async with slow_hub.subscription(tenant.tenancy_id, tenant.account_id) as reader:
        process = await listening(owner, others)
        await slow_hub.connected.wait()
        await reader.wait()
        slow_hub.outbox.clear()
        waiting = asyncio.ensure_future(reader.wait())
        await terminate(settings, process)
        await soon(waiting)
        assert slow_hub.outbox.is_set()
        assert await listening(owner, others | {process}) != process
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("of_tenancy", [False, True])
async def test_a_lost_notification_is_made_up_for_by_the_poll(
    settings: Settings, owner: Owner, new_tenant: NewTenant, monkeypatch: pytest.MonkeyPatch, of_tenancy: bool
) -> None:
    hub = Hub(settings.require("database_url"), poll_seconds=0.05)
    await hub.open()
    try:
        tenants = [await new_tenant(), await new_tenant()]
        for tenant in tenants:
            async with hub.subscription(tenant.tenancy_id, None if of_tenancy else tenant.account_id) as reader:
                await hub.connected.wait()
                await reader.wait()
                waiting = asyncio.ensure_future(reader.wait())
                sequence = await write_event(owner, tenant, notify=False)
                await soon(waiting)
                reader.cursor = sequence
                waiting = asyncio.ensure_future(reader.wait())
                await polls(hub, monkeypatch, 2)
                assert not waiting.done(), "a reader that has read everything is left alone"
                waiting.cancel()
    finally:
        await hub.close()


async def test_the_outbox_is_announced(slow_hub: Hub, owner: Owner) -> None:
    await slow_hub.connected.wait()
    slow_hub.outbox.clear()
    await owner.execute("SELECT pg_notify($1, '')", OUTBOX_CHANNEL)
    await asyncio.wait_for(slow_hub.outbox.wait(), 5)


async def test_it_waits_for_a_database_that_is_away(
    settings: Settings, tenant: Tenant, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = []
    begin = Outage.begin

    def counted(outage: Outage, error: Exception) -> float:
        failures.append(error)
        return begin(outage, error)

    async def until_failed(times: int) -> None:
        async def failed() -> bool:
            return len(failures) >= times

        await until(failed)

    monkeypatch.setattr(Outage, "begin", counted)
    async with tunnel(settings.require("database_url")) as way:
        await way.down()
        hub = Hub(way.url)
        await hub.open()
        async with hub.subscription(tenant.tenancy_id, tenant.account_id) as reader:
            await reader.wait()
            waiting = asyncio.ensure_future(reader.wait())
            await until_failed(2)
            assert not waiting.done()
            await way.up()
            await soon(waiting)
        await hub.close()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
