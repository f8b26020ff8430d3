"""Policies brought to AWS: what is called, how often, and what becomes of each error."""

import asyncio
import json
from collections import Counter
from typing import Final
from uuid import UUID, uuid4

import pytest

from server.accounts.models import AccountRole
from server.errors import Refused
from server.policies.models import AttachmentState, PolicyState
from server.policies.requests import Target
from tests.workers.proxies import Held, lose_answer, lose_request, refuse
from tests.workers.rollouts import DOCUMENT, Policies
from tests.workers.world import World
from workers.assurance.stage import StageStopped
from workers.executor import Interrupted
from workers.policies.calls import IMPLIED_PERMISSIONS, PERMISSIONS
from workers.policies.rollout import Rollouts

USED: set[str] = set()
SCP: Final = "SERVICE_CONTROL_POLICY"


@pytest.fixture
def policies(world: World) -> Policies:
    return Policies(world, USED)


async def unit_of(world: World, type_id: UUID | None) -> str:
    assert type_id is not None
    async with world.engine.connect() as connection:
        found = await connection.exec_driver_sql(
            f"SELECT organizational_unit_id FROM account_type WHERE id = '{type_id}'"
        )
        return str(found.scalar_one())


async def test_a_policy_comes_to_aws_and_onto_its_targets(
    world: World, policies: Policies, target: Target, hardened: UUID
) -> None:
    number, tenancy = (await world.account(hardened)).aws_account_id, await world.tenancy()
    policy_id = await policies.create(target, Target(account_id=hardened), Target())
    calls = await policies.roll_out(policy_id)
    assert calls == {"CreatePolicy": 1, "AttachPolicy": 3}
    policy = await policies.get(policy_id)
    [found] = await policies.in_aws(policy.name)
    assert (found["id"], found["description"]) == (policy.aws_policy_id, "d")
    assert found["content"] == json.dumps(DOCUMENT, separators=(",", ":"))
    assert set(found["targets"]) == {await unit_of(world, target.account_type_id), number, tenancy.aws_root_id}
    assert await policies.states(policy_id) == ["ACTIVE"] * 4
    assert (policy.next_attempt_at, policy.lease_until, policy.aws_version) == (None, None, 1)
    assert await policies.events(policy_id) == [
        ("PENDING", None),
        *[("PENDING", "PENDING")] * 3,
        ("ACTIVE", None),
        *[("ACTIVE", "ACTIVE")] * 3,
    ]
    for each in (target, Target(account_id=hardened), Target()):
        await policies.detach(policy_id, each)
    assert await policies.roll_out(policy_id) == {"DetachPolicy": 3}
    assert await policies.targets(policy_id) == []
    assert await policies.attachments(policy_id) == []


async def test_one_call_attaches_it_to_a_type_of_many_accounts(
    world: World, policies: Policies, target: Target
) -> None:
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    await policies.attach(policy_id, target)
    assert await policies.roll_out(policy_id) == {"AttachPolicy": 1}
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)


async def test_a_change_is_one_call_and_a_deleted_policy_is_gone(
    world: World, policies: Policies, target: Target
) -> None:
    policy_id = await policies.create(target)
    await policies.roll_out(policy_id)
    wider = {**DOCUMENT, "Statement": [{**DOCUMENT["Statement"][0], "Action": ["s3:*", "ec2:*"]}]}
    name = f"Renamed {uuid4().hex}"
    await policies.update(policy_id, document=wider, name=name)
    assert await policies.states(policy_id) == ["PENDING", "ACTIVE"]
    assert await policies.roll_out(policy_id) == {"UpdatePolicy": 1}
    [found] = await policies.in_aws(name)
    assert json.loads(found["content"]) == wider
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)
    await policies.delete(policy_id)
    assert await policies.roll_out(policy_id) == {"DeletePolicy": 1}
    assert await policies.find(policy_id) is None
    assert await policies.in_aws(name) == []
    assert (await policies.events(policy_id))[-3:] == [("ACTIVE", "DETACHED"), ("DELETING", None), ("DELETED", None)]


async def test_a_policy_that_aws_never_had_is_deleted_without_a_call(policies: Policies) -> None:
    policy_id = await policies.create()
    await policies.delete(policy_id)
    assert await policies.roll_out(policy_id) == {}
    assert await policies.find(policy_id) is None


async def test_a_target_that_aws_does_not_have_yet_gets_its_policies_when_it_has(
    world: World, policies: Policies
) -> None:
    type_id = await world.account_type(f"Later {uuid4().hex}")
    account_id, setup_id = await world.request(f"Later {uuid4().hex[:8]}", type_id)
    policy_id = await policies.create(Target(account_type_id=type_id), Target(account_id=account_id))
    assert await policies.roll_out(policy_id) == {"CreatePolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE", "PENDING", "PENDING"]
    assert (await policies.get(policy_id)).next_attempt_at is None
    async with world.holding(setup_id) as run:
        await world.assure(run, "create_account")
    assert await policies.roll_out(policy_id) == {"AttachPolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE", "PENDING", "ACTIVE"]
    async with world.holding(setup_id) as run:
        # The account joins its type's unit, made here, when the policy is there.
        with pytest.raises(StageStopped, match="POLICIES_PENDING"):
            await world.assure(run, "organizational_unit")
    assert await policies.roll_out(policy_id) == {"AttachPolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE"] * 3
    # Its unit is made anew: the policy belongs on the new one.
    await world.forget_unit(type_id)
    await world.keep_unit(type_id)
    assert await policies.states(policy_id) == ["ACTIVE", "PENDING", "ACTIVE"]
    await policies.roll_out(policy_id)
    assert await policies.states(policy_id) == ["ACTIVE"] * 3
    await world.complete(setup_id)


async def test_what_has_no_target_in_aws_is_detached_without_a_call(world: World, policies: Policies) -> None:
    type_id = await world.account_type(f"Never {uuid4().hex}")
    policy_id = await policies.create(Target(account_type_id=type_id))
    await policies.roll_out(policy_id)
    await policies.detach(policy_id, Target(account_type_id=type_id))
    assert await policies.roll_out(policy_id) == {}
    assert await policies.states(policy_id) == ["ACTIVE"]
    # For no worker of another test to find.
    await world.keep_unit(type_id)


async def test_already_so_is_success(world: World, policies: Policies, target: Target) -> None:
    """The answer is lost, and AWS is asked again: as after a worker that died before it wrote."""

    async def lose(call: str) -> Counter[str]:
        world.proxy.fail(call, lose_answer)
        calls = await policies.roll_out(policy_id)
        await policies.make_due(policy_id)
        return calls

    policy_id = await policies.create(target)
    assert await lose("CreatePolicy") == {"CreatePolicy": 1}
    again = await lose("AttachPolicy")
    assert (again["CreatePolicy"], again["UpdatePolicy"], again["AttachPolicy"]) == (1, 1, 1)
    assert await policies.roll_out(policy_id) == {"AttachPolicy": 1}
    policy = await policies.get(policy_id)
    assert len(await policies.in_aws(policy.name)) == 1
    assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
    await policies.detach(policy_id, target)
    assert await lose("DetachPolicy") == await policies.roll_out(policy_id) == {"DetachPolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE"]
    await policies.delete(policy_id)
    assert await lose("DeletePolicy") == await policies.roll_out(policy_id) == {"DeletePolicy": 1}
    assert await policies.find(policy_id) is None


async def test_what_was_created_under_another_name_is_found(world: World, policies: Policies) -> None:
    """The answer was lost, and somebody renamed it before anybody knew that AWS has it."""
    policy_id = await policies.create()
    before = (await policies.get(policy_id)).name
    world.proxy.fail("CreatePolicy", lose_answer)
    await policies.roll_out(policy_id)
    await policies.make_due(policy_id)
    name = f"Renamed {uuid4().hex}"
    await policies.update(policy_id, name=name)
    await policies.roll_out(policy_id)
    assert len(await policies.in_aws(name)) == 1
    assert await policies.in_aws(before) == []
    assert await policies.states(policy_id) == ["ACTIVE"]


@pytest.mark.parametrize("created", [True, False])
async def test_so_is_what_was_created_of_a_policy_that_is_deleted(
    world: World, policies: Policies, created: bool
) -> None:
    policy_id = await policies.create()
    name = (await policies.get(policy_id)).name
    world.proxy.fail("CreatePolicy", lose_answer if created else lose_request)
    await policies.roll_out(policy_id)
    await policies.make_due(policy_id)
    await policies.delete(policy_id)
    await policies.roll_out(policy_id)
    assert await policies.find(policy_id) is None
    assert await policies.in_aws(name) == []


async def test_a_stranger_of_the_same_name_is_left_alone(world: World, policies: Policies) -> None:
    name = f"Stranger {uuid4().hex}"
    async with world.aws.client("organizations", "us-east-1") as organizations:
        made = await organizations.create_policy(
            Name=name, Description="theirs", Type=SCP, Content=json.dumps(DOCUMENT)
        )
        theirs = made["Policy"]["PolicySummary"]["Id"]
    policy_id = await policies.create(name=name)
    await policies.roll_out(policy_id)
    policy = await policies.get(policy_id)
    assert (policy.state, policy.error_code, policy.next_attempt_at) == (PolicyState.FAILED, "NAME_TAKEN", None)
    assert policy.error_message is not None
    assert name in policy.error_message
    # Another name is another beginning.
    await policies.update(policy_id, name=f"{name} of ours")
    assert (await policies.roll_out(policy_id))["CreatePolicy"] == 1
    assert await policies.states(policy_id) == ["ACTIVE"]
    [found] = await policies.in_aws(name)
    assert (found["id"], found["description"]) == (theirs, "theirs")
    await policies.update(policy_id, name=name)
    await policies.roll_out(policy_id)
    assert await policies.states(policy_id) == ["FAILED"]


async def test_a_name_that_another_policy_gives_up_is_waited_for(world: World, policies: Policies) -> None:
    first = await policies.create()
    await policies.roll_out(first)
    name = (await policies.get(first)).name
    await policies.update(first, name=f"{name} before")
    second = await policies.create(name=name)
    await policies.roll_out(second)
    waiting = await policies.get(second)
    assert (waiting.state, waiting.error_code, waiting.attempts) == (PolicyState.PENDING, "NAME_TAKEN", 1)
    await policies.roll_out(first)
    await policies.make_due(second)
    await policies.roll_out(second)
    assert await policies.states(second) == ["ACTIVE"]


async def test_what_somebody_deleted_in_aws_is_made_anew(world: World, policies: Policies, target: Target) -> None:
    policy_id = await policies.create(target)
    await policies.roll_out(policy_id)
    before = (await policies.get(policy_id)).aws_policy_id
    assert before is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        unit = await unit_of(world, target.account_type_id)
        await organizations.detach_policy(PolicyId=before, TargetId=unit)
        await organizations.delete_policy(PolicyId=before)
    await policies.update(policy_id, description="changed")
    known = len(await policies.events(policy_id))
    assert await policies.roll_out(policy_id) == {"UpdatePolicy": 1, "CreatePolicy": 1, "AttachPolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
    # Whoever follows it hears that it is in force nowhere until it is again.
    assert (await policies.events(policy_id))[known:] == [
        *[("PENDING", None), ("PENDING", "PENDING")],
        *[("ACTIVE", None), ("ACTIVE", "ACTIVE")],
    ]
    assert (await policies.get(policy_id)).aws_policy_id not in (None, before)
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)


@pytest.mark.parametrize(
    ("call", "error"),
    [("AttachPolicy", "ConcurrentModificationException"), ("CreatePolicy", "TooManyRequestsException")],
)
async def test_an_error_that_passes_is_waited_for(
    world: World, policies: Policies, target: Target, call: str, error: str
) -> None:
    policy_id = await policies.create(target)
    world.proxy.fail(call, *[refuse(error)] * 3)
    await policies.roll_out(policy_id)
    policy, [attachment] = await policies.get(policy_id), await policies.attachments(policy_id)
    told = attachment if call == "AttachPolicy" else policy
    assert (told.state, told.error_code, told.error_class) == ("PENDING", error, "TRANSIENT")
    assert (policy.attempts, policy.lease_until) == (1, None)
    assert policy.next_attempt_at is not None
    await policies.make_due(policy_id)
    world.proxy.reset()
    await policies.roll_out(policy_id)
    assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
    [attachment] = await policies.attachments(policy_id)
    assert (attachment.error_code, (await policies.get(policy_id)).error_code) == (None, None)
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)


async def test_an_attachment_that_aws_refuses_does_not_hold_the_others_up(
    world: World, policies: Policies, target: Target, hardened: UUID
) -> None:
    policy_id = await policies.create(target, Target(account_id=hardened))
    limit = "MAX_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED"
    world.proxy.fail("AttachPolicy", refuse("ConstraintViolationException", Reason=limit))
    await policies.roll_out(policy_id)
    assert await policies.states(policy_id) == ["ACTIVE", "FAILED", "ACTIVE"]
    failed, _ = await policies.attachments(policy_id)
    assert (failed.error_code, failed.error_class) == (limit, "NEEDS_PERSON")
    assert (await policies.get(policy_id)).next_attempt_at is None
    await policies.retry(policy_id)
    assert await policies.roll_out(policy_id) == {"AttachPolicy": 1}
    assert await policies.states(policy_id) == ["ACTIVE"] * 3
    for each in (target, Target(account_id=hardened)):
        await policies.detach(policy_id, each)
    await policies.roll_out(policy_id)


async def test_what_aws_does_not_let_go_stays_with_the_reason(world: World, policies: Policies, target: Target) -> None:
    policy_id = await policies.create(target)
    await policies.roll_out(policy_id)
    await policies.detach(policy_id, target)
    world.proxy.fail("DetachPolicy", refuse("AccessDeniedException"))
    await policies.roll_out(policy_id)
    [attachment] = await policies.attachments(policy_id)
    assert (attachment.state, attachment.error_code) == (AttachmentState.DETACHING, "AccessDeniedException")
    assert attachment.error_message is not None
    assert "retry the rollout" in attachment.error_message
    await policies.retry(policy_id)
    await policies.roll_out(policy_id)
    aws_policy_id = (await policies.get(policy_id)).aws_policy_id
    assert aws_policy_id is not None
    unit = await unit_of(world, target.account_type_id)
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.attach_policy(PolicyId=aws_policy_id, TargetId=unit)
        await policies.delete(policy_id)
        await policies.roll_out(policy_id)
        policy = await policies.get(policy_id)
        assert (policy.state, policy.error_code) == (PolicyState.DELETING, "PolicyInUseException")
        await organizations.detach_policy(PolicyId=aws_policy_id, TargetId=unit)
    await policies.retry(policy_id)
    await policies.roll_out(policy_id)
    assert await policies.find(policy_id) is None


async def test_a_document_that_aws_refuses_is_told_and_corrected(world: World, policies: Policies) -> None:
    policy_id = await policies.create()
    world.proxy.fail("CreatePolicy", refuse("MalformedPolicyDocumentException"))
    await policies.roll_out(policy_id)
    policy = await policies.get(policy_id)
    assert (policy.state, policy.error_code, policy.aws_version) == ("FAILED", "MalformedPolicyDocumentException", None)
    await policies.update(policy_id, description="corrected")
    await policies.roll_out(policy_id)
    assert await policies.states(policy_id) == ["ACTIVE"]


async def test_an_error_of_our_own_is_not_tried_for_ever(
    policies: Policies, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy_id = await policies.create()

    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("workers.policies.calls.create", broken)
    for _ in range(5):
        await policies.roll_out(policy_id)
        await policies.make_due(policy_id)
    policy = await policies.get(policy_id)
    assert (policy.state, policy.error_code, policy.error_class) == ("FAILED", "INTERNAL", "NEEDS_PERSON")
    assert "RuntimeError: broken" in caplog.text


async def test_what_changes_during_a_call_is_not_lost(world: World, policies: Policies, target: Target) -> None:
    policy_id = await policies.create()
    for call, change in (
        ("CreatePolicy", policies.update(policy_id, description="changed under way")),
        ("AttachPolicy", policies.detach(policy_id, target)),
        ("DetachPolicy", policies.attach(policy_id, target)),
    ):
        if call == "AttachPolicy":
            await policies.attach(policy_id, target)
        held = Held()
        world.proxy.fail(call, held)
        rollout = asyncio.create_task(policies.roll_out(policy_id))
        async with asyncio.timeout(10):
            await held.reached.wait()
        await change
        held.release()
        calls = await rollout
        if call == "CreatePolicy":
            assert calls == {"CreatePolicy": 1, "UpdatePolicy": 1}
        elif call == "AttachPolicy":
            assert calls == {"AttachPolicy": 1, "DetachPolicy": 1}
            assert await policies.states(policy_id) == ["ACTIVE"]
            await policies.attach(policy_id, target)
            await policies.roll_out(policy_id)
            await policies.detach(policy_id, target)
        else:
            assert calls == {"DetachPolicy": 1, "AttachPolicy": 1}
    [found] = await policies.in_aws((await policies.get(policy_id)).name)
    assert (found["description"], len(found["targets"])) == ("changed under way", 1)
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)


async def test_a_worker_that_stops_gives_the_rollout_back(world: World, policies: Policies, target: Target) -> None:
    policy_id = await policies.create(target)
    lease = await policies.claim(policy_id)
    lease.wanted_back = True
    with pytest.raises(Interrupted):
        await asyncio.create_task(Rollouts(world.engine, world.aws).run(lease))
    await lease.give_back()
    await policies.roll_out(policy_id)
    assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)


async def test_the_management_account_is_no_target(world: World, policies: Policies) -> None:
    management = await world.account_in_role(AccountRole.MANAGEMENT)
    policy_id = await policies.create()
    with pytest.raises(Refused, match="do not affect the management account"):
        await policies.attach(policy_id, Target(account_id=management.id))


async def test_every_permission_of_a_rollout_is_declared_and_used(
    world: World, policies: Policies, target: Target
) -> None:
    """Tests that ran before this one have recorded most of it; it passes alone."""
    policy_id = await policies.create(target)
    world.proxy.fail("CreatePolicy", lose_answer)
    await policies.roll_out(policy_id)
    await policies.make_due(policy_id)
    await policies.roll_out(policy_id)
    await policies.update(policy_id, description="changed")
    await policies.roll_out(policy_id)
    await policies.detach(policy_id, target)
    await policies.roll_out(policy_id)
    await policies.delete(policy_id)
    await policies.roll_out(policy_id)
    assert list(PERMISSIONS) == sorted(PERMISSIONS)
    assert policies.used == set(PERMISSIONS) - set(IMPLIED_PERMISSIONS)
