"""A worker that dies anywhere in a rollout leaves it to the next one, which makes nothing twice and forgets nothing."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import delete

from server.database import transaction
from server.policies.requests import Target
from server.tenancies.models import OrganizationTurn
from tests.server.waiting import until
from tests.workers.deaths import die_everywhere
from tests.workers.proxies import Held
from tests.workers.rollouts import Policies
from tests.workers.test_worker import worker_process
from tests.workers.world import World
from workers.main import working

CALLS = ("CreatePolicy", "UpdatePolicy", "AttachPolicy", "DetachPolicy", "DeletePolicy")


async def roll_out_dying(
    world: World,
    policies: Policies,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[], Awaitable[UUID]],
    end: Callable[[UUID], Awaitable[None]],
) -> list[str]:
    async def carry_on(policy_id: UUID) -> None:
        policy = await policies.find(policy_id)
        if policy is not None and policy.next_attempt_at is not None:
            await policies.make_due(policy_id)
            await policies.roll_out(policy_id)

    return await die_everywhere(
        world, monkeypatch, CALLS, arrange=arrange, work=policies.roll_out, carry_on=carry_on, end=end
    )


async def test_a_policy_is_created_once_and_attached(
    world: World, policies: Policies, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(policy_id: UUID) -> None:
        assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
        policy = await policies.get(policy_id)
        [found] = await policies.in_aws(policy.name)
        assert (found["id"], len(found["targets"])) == (policy.aws_policy_id, 1)
        assert await policies.events(policy_id) == [
            ("PENDING", None),
            ("PENDING", "PENDING"),
            *([("PENDING", None)] if policy.last_seq == 5 else []),
            ("ACTIVE", None),
            ("ACTIVE", "ACTIVE"),
        ]
        # AWS does not take an eleventh.
        await policies.detach(policy_id, target)
        await policies.roll_out(policy_id)

    places = await roll_out_dying(world, policies, monkeypatch, lambda: policies.create(target), end)
    assert places == [
        *("uncommitted", "committed", "before-call CreatePolicy", "after-call CreatePolicy"),
        *("uncommitted", "committed", "before-call AttachPolicy", "after-call AttachPolicy"),
        *("uncommitted", "committed"),
    ]


async def test_a_policy_is_changed_detached_and_deleted(
    world: World, policies: Policies, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[UUID, str] = {}

    async def changed() -> UUID:
        policy_id = await policies.create(target)
        await policies.roll_out(policy_id)
        names[policy_id] = f"{(await policies.get(policy_id)).name} renamed"
        await policies.update(policy_id, name=names[policy_id])
        await policies.detach(policy_id, target)
        return policy_id

    async def detached(policy_id: UUID) -> None:
        assert await policies.states(policy_id) == ["ACTIVE"]
        [found] = await policies.in_aws(names[policy_id])
        assert found["targets"] == []

    places = await roll_out_dying(world, policies, monkeypatch, changed, detached)
    assert [place for place in places if "before" in place] == ["before-call UpdatePolicy", "before-call DetachPolicy"]

    async def deleting() -> UUID:
        policy_id = await policies.create()
        await policies.roll_out(policy_id)
        names[policy_id] = (await policies.get(policy_id)).name
        await policies.delete(policy_id)
        return policy_id

    async def deleted(policy_id: UUID) -> None:
        assert await policies.find(policy_id) is None
        assert await policies.in_aws(names[policy_id]) == []
        assert (await policies.events(policy_id))[-1] == ("DELETED", None)

    places = await roll_out_dying(world, policies, monkeypatch, deleting, deleted)
    assert [place for place in places if "before" in place] == ["before-call DeletePolicy"]


async def test_a_killed_worker_is_replaced_and_the_policy_made_once(
    world: World, policies: Policies, target: Target
) -> None:
    held = Held()
    world.proxy.fail("CreatePolicy", held)
    async with worker_process(world.settings) as process:
        policy_id = await policies.create(target)
        async with asyncio.timeout(20):
            await held.reached.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    held.release()
    assert (await policies.get(policy_id)).aws_policy_id is None
    # As if the time had passed: the dead worker's lease and its turn at the organization have run out, and its call
    # cannot reach AWS any more.
    await policies.make_due(policy_id)
    async with transaction(world.engine) as session:
        await session.execute(delete(OrganizationTurn).where(OrganizationTurn.tenancy_id == world.tenancy_id))

    async def attached() -> bool:
        return await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]

    async with working(world.settings):
        await until(attached, within=30)
    assert len(await policies.in_aws((await policies.get(policy_id)).name)) == 1
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)
