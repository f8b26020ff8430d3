"""What somebody asks of a policy while AWS answers a call about it, or while a call of before is still under way."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.policies.models import PolicyState
from server.policies.requests import Target
from tests.workers.proxies import Fault, Held, refuse
from tests.workers.rollouts import DOCUMENT, Policies
from tests.workers.world import World
from workers.assurance.stages.policy_types import POLICY_TYPE
from workers.assurance.units import create_unit_of_type


@pytest.fixture
def policies(world: World) -> Policies:
    return Policies(world)


@pytest.fixture
async def target(world: World, team: UUID) -> Target:
    await create_unit_of_type(world.engine, world.aws, team)
    return Target(account_type_id=team)


def named(sid: str) -> dict[str, Any]:
    return {**DOCUMENT, "Statement": [{**DOCUMENT["Statement"][0], "Sid": sid}]}


async def roll_out_during(
    world: World, policies: Policies, policy_id: UUID, call: str, fault: Fault | None, change: Awaitable[object]
) -> Counter[str]:
    """Roll out once; `change` happens after AWS has answered the call, with the fault, and before anybody hears it."""
    held = Held(fault)
    world.proxy.fail(call, held)
    rollout = asyncio.create_task(policies.roll_out(policy_id))
    async with asyncio.timeout(10):
        await held.reached.wait()
    await change
    held.release()
    return await rollout


async def test_a_document_that_is_corrected_while_aws_refuses_it_is_rolled_out(
    world: World, policies: Policies
) -> None:
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    await policies.update(policy_id, document=named("Refused"))
    refused = refuse("MalformedPolicyDocumentException")
    corrected = policies.update(policy_id, document=named("Corrected"))
    calls = await roll_out_during(world, policies, policy_id, "UpdatePolicy", refused, corrected)
    policy = await policies.get(policy_id)
    assert calls == {"UpdatePolicy": 2}
    assert (policy.state, policy.aws_version, policy.error_code) == (PolicyState.ACTIVE, 3, None)
    [found] = await policies.in_aws(policy.name)
    assert '"Sid":"Corrected"' in found["content"]
    # Nobody was told that the version AWS never saw had failed.
    assert "FAILED" not in {state for state, _ in await policies.events(policy_id)}


async def test_a_name_that_is_given_up_while_aws_refuses_it_fails_nothing(world: World, policies: Policies) -> None:
    theirs, name = f"Stranger {uuid4().hex}", f"Ours {uuid4().hex}"
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.create_policy(
            Name=theirs, Description="theirs", Type=POLICY_TYPE, Content=json.dumps(DOCUMENT)
        )
    policy_id = await policies.create(name=theirs)
    renamed = policies.update(policy_id, name=name)
    calls = await roll_out_during(world, policies, policy_id, "CreatePolicy", None, renamed)
    assert calls["CreatePolicy"] == 2
    assert await policies.states(policy_id) == ["ACTIVE"]
    assert len(await policies.in_aws(name)) == 1


async def test_what_is_deleted_while_aws_refuses_its_change_goes(world: World, policies: Policies) -> None:
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    name = (await policies.get(policy_id)).name
    await policies.update(policy_id, document=named("Refused"))
    refused = refuse("MalformedPolicyDocumentException")
    calls = await roll_out_during(world, policies, policy_id, "UpdatePolicy", refused, policies.delete(policy_id))
    assert calls == {"UpdatePolicy": 1, "DeletePolicy": 1}
    assert await policies.find(policy_id) is None
    assert await policies.in_aws(name) == []


async def test_what_is_detached_while_aws_refuses_to_attach_it_is_detached(
    world: World, policies: Policies, target: Target
) -> None:
    policy_id = await policies.create(target)
    refused = refuse("AccessDeniedException")
    calls = await roll_out_during(
        world, policies, policy_id, "AttachPolicy", refused, policies.detach(policy_id, target)
    )
    assert calls == {"CreatePolicy": 1, "AttachPolicy": 1, "DetachPolicy": 1}
    assert await policies.attachments(policy_id) == []


async def test_what_is_attached_again_while_aws_refuses_to_detach_it_is_in_force(
    world: World, policies: Policies, target: Target
) -> None:
    policy_id = await policies.create(target)
    await policies.roll_out(policy_id)
    await policies.detach(policy_id, target)
    refused = refuse("AccessDeniedException")
    calls = await roll_out_during(
        world, policies, policy_id, "DetachPolicy", refused, policies.attach(policy_id, target)
    )
    assert calls == {"DetachPolicy": 1, "AttachPolicy": 1}
    [attachment] = await policies.attachments(policy_id)
    assert (attachment.state, attachment.error_code) == ("ACTIVE", None)
    assert len(await policies.targets(policy_id)) == 1
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)


async def test_what_is_asked_while_a_call_fails_that_is_tried_again_is_tried_at_once(
    world: World, policies: Policies, target: Target
) -> None:
    """After many attempts the next one is up to a minute away, which is not for what is asked anew."""
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    await policies.update(policy_id, description="1")
    busy = refuse("ConcurrentModificationException")
    for _ in range(3):
        world.proxy.fail("UpdatePolicy", *[busy] * 3)
        await policies.roll_out(policy_id)
        await policies.make_due(policy_id)
        world.proxy.reset()
    assert (await policies.get(policy_id)).attempts == 3
    changed = policies.update(policy_id, description="2")
    await roll_out_during(world, policies, policy_id, "UpdatePolicy", busy, changed)
    assert await policies.states(policy_id) == ["ACTIVE"]
    # Something else of the same policy does not wait for it, either.
    await policies.update(policy_id, description="3")
    attached = policies.attach(policy_id, target)
    await roll_out_during(world, policies, policy_id, "UpdatePolicy", busy, attached)
    assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)
