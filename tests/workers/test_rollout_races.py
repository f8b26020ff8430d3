"""What somebody asks of a policy while AWS answers a call about it, or while a call of before is still under way."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.accounts.service import SYSTEM
from server.database import transaction
from server.leases import LeaseLost
from server.policies.models import Policy, PolicyState
from server.policies.requests import Target, change_policy
from tests.workers.proxies import Fault, Held, Late, lose_answer, lose_request, refuse
from tests.workers.rollouts import DOCUMENT, Policies
from tests.workers.world import World
from workers.assurance.protection import POLICY_TYPE
from workers.aws.session import QUARANTINE_SECONDS
from workers.policies.rollout import Rollouts


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


async def test_what_is_wanted_again_while_aws_deletes_it_is_made_anew(world: World, policies: Policies) -> None:
    """As when a managed policy takes the place of one that is being deleted."""
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    before = (await policies.get(policy_id)).aws_policy_id
    await policies.delete(policy_id)

    async def want() -> None:
        async with transaction(world.engine) as session:
            policy = await session.get_one(Policy, policy_id, with_for_update=True)
            await change_policy(session, SYSTEM, policy, description="wanted")

    calls = await roll_out_during(world, policies, policy_id, "DeletePolicy", None, want())
    assert calls == {"DeletePolicy": 1, "CreatePolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE"]
    policy = await policies.get(policy_id)
    assert policy.aws_policy_id != before
    assert len(await policies.in_aws(policy.name)) == 1


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


async def die_during(world: World, policies: Policies, policy_id: UUID, call: str) -> Late:
    """Roll out, and die when the call has been sent, which AWS has not heard by then."""
    late = Late()
    world.proxy.fail(call, late)
    rollout = asyncio.create_task(policies.roll_out(policy_id))
    async with asyncio.timeout(10):
        await late.reached.wait()
    rollout.cancel()
    with suppress(asyncio.CancelledError):
        await rollout
    return late


async def test_a_change_that_aws_hears_late_does_not_undo_a_later_one(world: World, policies: Policies) -> None:
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    await policies.update(policy_id, document=named("Old"))
    late = await die_during(world, policies, policy_id, "UpdatePolicy")
    await policies.update(policy_id, document=named("New"))
    await policies.abandon(policy_id)
    # The next worker waits until the call of the dead one is heard or never will be.
    assert await policies.roll_out(policy_id) == {}
    policy = await policies.get(policy_id)
    assert (policy.state, policy.lease_until) == (PolicyState.PENDING, None)
    assert policy.called_at is not None
    assert policy.next_attempt_at == policy.called_at + timedelta(seconds=QUARANTINE_SECONDS)
    await late.arrive()
    await policies.make_due(policy_id)
    assert await policies.roll_out(policy_id) == {"UpdatePolicy": 1}
    policy = await policies.get(policy_id)
    assert (policy.state, policy.aws_version, policy.called_at) == (PolicyState.ACTIVE, 3, None)
    [found] = await policies.in_aws(policy.name)
    assert '"Sid":"New"' in found["content"]


async def test_a_detachment_that_aws_hears_late_does_not_undo_an_attachment(
    world: World, policies: Policies, target: Target
) -> None:
    policy_id = await policies.create(target)
    await policies.roll_out(policy_id)
    await policies.detach(policy_id, target)
    late = await die_during(world, policies, policy_id, "DetachPolicy")
    await policies.attach(policy_id, target)
    await policies.abandon(policy_id)
    assert await policies.roll_out(policy_id) == {}
    assert await policies.states(policy_id) == ["ACTIVE", "PENDING"]
    await late.arrive()
    assert await policies.targets(policy_id) == []
    await policies.make_due(policy_id)
    assert await policies.roll_out(policy_id) == {"AttachPolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
    assert len(await policies.targets(policy_id)) == 1
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)


@pytest.mark.parametrize("fault", [lose_answer, lose_request, refuse("ServiceException", 500)], ids=range(3))
async def test_a_call_without_an_answer_is_sent_once_and_waited_for(
    world: World, policies: Policies, fault: Fault
) -> None:
    """By a worker that lives, too: AWS may hear of it later."""
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    await policies.update(policy_id, document=named("Old"))
    world.proxy.fail("UpdatePolicy", fault)
    assert await policies.roll_out(policy_id) == {"UpdatePolicy": 1}
    policy = await policies.get(policy_id)
    assert policy.called_at is not None
    assert policy.next_attempt_at is not None
    heard_by = policy.called_at + timedelta(seconds=QUARANTINE_SECONDS)
    assert policy.next_attempt_at >= heard_by
    # What is asked meanwhile waits as well.
    await policies.update(policy_id, document=named("New"))
    assert await policies.roll_out(policy_id) == {}
    assert (await policies.get(policy_id)).next_attempt_at == heard_by
    await policies.make_due(policy_id)
    assert await policies.roll_out(policy_id) == {"UpdatePolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE"]


async def test_a_call_is_sent_only_by_whom_the_lease_outlasts_it(world: World, policies: Policies) -> None:
    policy_id = await policies.create()
    lease = await policies.claim(policy_id)
    # Whatever is left of the lease by then: it is renewed before the call.
    lease.deadline = time.monotonic() + 1

    def freeze(**_: object) -> None:
        lease.deadline -= 5

    async with world.aws.client("organizations", "us-east-1", once=True) as organizations:
        organizations.meta.events.register("before-sign.organizations.UpdatePolicy", freeze)
        try:
            await asyncio.create_task(Rollouts(world.engine, world.aws).run(lease))
            assert await policies.states(policy_id) == ["ACTIVE"]
            await policies.update(policy_id, description="changed")
            lease = await policies.claim(policy_id)
            with pytest.raises(LeaseLost):
                await asyncio.create_task(Rollouts(world.engine, world.aws).run(lease))
        finally:
            organizations.meta.events.unregister("before-sign.organizations.UpdatePolicy", freeze)
    assert world.proxy.calls["UpdatePolicy"] == 0
    await policies.make_due(policy_id)
    await policies.roll_out(policy_id)
