"""Drift: what a second client changes in AWS behind Freehold's back is found by a comparison, and mended on request."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import aioboto3
import pytest
from aiohttp import web
from sqlalchemy import delete, func, select, update

from server.access.removal import delete_account_type
from server.accounts.models import AccountStatus
from server.config import SIMULATOR_CREDENTIALS
from server.database import transaction
from server.errors import Refused
from server.leases import StageError, StageErrorClass
from server.policies.comparison import request_comparison, schedule_comparisons
from server.policies.drift import AT_REST
from server.policies.models import Policy, PolicyAttachment, PolicyComparison, PolicyState
from server.policies.requests import Target
from tests.server.waiting import until
from tests.workers.proxies import Held, answer, refuse
from tests.workers.rollouts import DOCUMENT, Policies
from tests.workers.test_rollout_crashes import roll_out_dying
from tests.workers.test_rollouts import unit_of
from tests.workers.world import World
from workers.assurance.stage import StageStopped
from workers.lease import Lease, claim
from workers.main import working
from workers.policies.comparison import COMPARISON, PERMISSIONS, Comparisons

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

OTHER = {**DOCUMENT, "Statement": [{**DOCUMENT["Statement"][0], "Action": ["ec2:*"]}]}
EVERY = timedelta(minutes=15)
PUT_AWAY = {"state": PolicyState.FAILED, "aws_policy_id": None, "next_attempt_at": None}
READS = ("DescribePolicy", "ListTargetsForPolicy")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of other files leave policies behind, and each would be waited for."""
    monkeypatch.setattr("workers.policies.comparison.CALLS_A_SECOND", 10_000.0)


@pytest.fixture
async def unit(world: World, target: Target) -> str:
    return await unit_of(world, target.account_type_id)


@pytest.fixture
async def stranger(world: World) -> AsyncIterator["OrganizationsClient"]:
    """A client of somebody who knows nothing of Freehold."""
    session = aioboto3.Session(*SIMULATOR_CREDENTIALS)
    async with session.client("organizations", region_name="us-east-1", endpoint_url=world.proxy.url) as client:
        yield client


@pytest.fixture
async def ours(policies: Policies, target: Target) -> AsyncIterator[UUID]:
    """A policy on a type, in force in AWS."""
    policy_id = await policies.create(target)
    await policies.roll_out(policy_id)
    yield policy_id
    await put_away(policies, policy_id)


async def put_away(policies: Policies, policy_id: UUID) -> None:
    """Detach it from everything, as no target takes an eleventh, and let no comparison read it again."""
    policy = await policies.get(policy_id)
    async with policies.world.aws.client("organizations", "us-east-1") as organizations:
        if policy.aws_policy_id is not None and await policies.in_aws(policy.name):
            for each in await policies.targets(policy_id):
                await organizations.detach_policy(PolicyId=policy.aws_policy_id, TargetId=each)
    async with transaction(policies.world.engine) as session:
        await session.execute(delete(PolicyAttachment).where(PolicyAttachment.policy_id == policy_id))
        await session.execute(update(Policy).where(Policy.id == policy_id).values(**PUT_AWAY))


async def in_aws(policies: Policies, policy_id: UUID) -> str:
    found = (await policies.get(policy_id)).aws_policy_id
    assert found is not None
    return found


async def comparison_of(world: World) -> PolicyComparison:
    async with transaction(world.engine) as session:
        rows = select(PolicyComparison).where(PolicyComparison.tenancy_id == world.tenancy_id)
        return (await session.scalars(rows)).one()


async def set_comparison(world: World, **values: object) -> None:
    async with transaction(world.engine) as session:
        await session.execute(
            update(PolicyComparison).where(PolicyComparison.tenancy_id == world.tenancy_id).values(**values)
        )


async def requested(world: World) -> Lease[PolicyComparison]:
    """The lease of a comparison that somebody has asked for."""
    async with transaction(world.engine) as session:
        await request_comparison(session, world.tenancy_id)
    lease = await claim(world.engine, COMPARISON, (await comparison_of(world)).id)
    assert lease is not None
    return lease


async def run(world: World, lease: Lease[PolicyComparison], every: timedelta | None = EVERY) -> Counter[str]:
    """Compare as one worker does; the calls to AWS that it took."""
    before = world.proxy.calls.copy()
    await asyncio.create_task(Comparisons(world.engine, world.aws, every).run(lease))
    return world.proxy.calls - before


async def compare(world: World) -> Counter[str]:
    return await run(world, await requested(world))


async def kinds(policies: Policies, policy_id: UUID) -> list[str]:
    return [each.kind for each in await policies.drift(policy_id)]


async def at_rest(world: World) -> set[str]:
    """The ids in AWS of the policies that are compared."""
    rows = select(Policy.aws_policy_id).where(
        Policy.tenancy_id == world.tenancy_id, Policy.state.in_(AT_REST), Policy.next_attempt_at.is_(None)
    )
    async with transaction(world.engine) as session:
        return {each for each in await session.scalars(rows) if each is not None}


async def pass_on(_: object, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
    """The call of another policy, before the one that is meant: they are read in the order of their creation."""
    return await forward()


# What is found


async def test_what_is_as_on_record_has_not_drifted(world: World, policies: Policies, ours: UUID) -> None:
    before = (await policies.get(ours)).last_seq
    calls = await compare(world)
    asked = len(await at_rest(world))
    assert calls == {"DescribePolicy": asked, "ListTargetsForPolicy": asked}
    assert await policies.drift(ours) == []
    assert (await policies.get(ours)).last_seq == before
    comparison = await comparison_of(world)
    assert comparison.checked_at is not None
    assert (comparison.started_at, comparison.requested_at, comparison.lease_until) == (None, None, None)


async def test_a_changed_document_is_found_and_gone_when_it_is_changed_back(
    world: World,
    policies: Policies,
    ours: UUID,
    stranger: "OrganizationsClient",
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    policy, aws_id = await policies.get(ours), await in_aws(policies, ours)
    name = f"Theirs {uuid4().hex}"
    await stranger.update_policy(PolicyId=aws_id, Name=name, Description="theirs", Content=json.dumps(OTHER))
    await compare(world)
    [drift] = await policies.drift(ours)
    assert (drift.kind, drift.aws_target_id) == ("DOCUMENT_CHANGED", "")
    assert (drift.name, drift.description, drift.document) == (name, "theirs", OTHER)
    assert drift.detail == (
        f"Somebody has changed its document and its name and its description in AWS; it is called {name!r} there."
    )
    assert (await policies.events(ours))[-1] == ("ACTIVE", None)
    told = f"policy {policy.name!r} (pol_{ours.hex}) has drifted: {drift.detail}"
    assert told in caplog.text
    assert await policies.states(ours) == ["ACTIVE", "ACTIVE"]
    # Known already, it is told once.
    events = (await policies.get(ours)).last_seq
    caplog.clear()
    await compare(world)
    assert [each.found_at for each in await policies.drift(ours)] == [drift.found_at]
    assert (await policies.get(ours)).last_seq == events
    assert policy.name not in caplog.text
    content = json.dumps(DOCUMENT, indent=4)
    await stranger.update_policy(PolicyId=aws_id, Name=policy.name, Description=policy.description, Content=content)
    await compare(world)
    assert await policies.drift(ours) == []
    assert (await policies.get(ours)).last_seq == events + 1
    assert "this is no longer so: Somebody has changed" in caplog.text


async def test_where_it_is_detached_and_attached_is_found(
    world: World, policies: Policies, ours: UUID, unit: str, hardened: UUID, stranger: "OrganizationsClient"
) -> None:
    aws_id, account, tenancy = await in_aws(policies, ours), await world.account(hardened), await world.tenancy()
    assert account.aws_account_id is not None
    assert tenancy.aws_root_id is not None
    assert tenancy.workloads_ou_id is not None
    await stranger.detach_policy(PolicyId=aws_id, TargetId=unit)
    for each in (account.aws_account_id, tenancy.aws_root_id, tenancy.workloads_ou_id):
        await stranger.attach_policy(PolicyId=aws_id, TargetId=each)
    await compare(world)
    found = {each.aws_target_id: each for each in await policies.drift(ours)}
    assert found.keys() == {unit, account.aws_account_id, tenancy.aws_root_id, tenancy.workloads_ou_id}
    assert [each for each in found if found[each].kind == "DETACHED"] == [unit]
    assert found[unit].detail == f"Somebody has detached it in AWS from the account type 'Team' ({unit})."
    on_account, on_root = found[account.aws_account_id], found[tenancy.aws_root_id]
    assert (on_account.kind, on_account.account_id) == ("ATTACHED_ELSEWHERE", hardened)
    assert "to the account 'Hardened'" in on_account.detail
    assert (on_root.target_tenancy_id, "to the tenancy" in on_root.detail) == (world.tenancy_id, True)
    unknown = found[tenancy.workloads_ou_id]
    assert (unknown.account_id, unknown.account_type_id, unknown.target_tenancy_id) == (None, None, None)
    assert "to 'Workloads' (ou-" in unknown.detail
    # What the type gets and loses is put right there: nobody has to mend it.
    await stranger.attach_policy(PolicyId=aws_id, TargetId=unit)
    await stranger.detach_policy(PolicyId=aws_id, TargetId=tenancy.aws_root_id)
    await compare(world)
    assert await kinds(policies, ours) == ["ATTACHED_ELSEWHERE"] * 2


async def test_a_deleted_policy_is_found(
    world: World, policies: Policies, ours: UUID, unit: str, stranger: "OrganizationsClient"
) -> None:
    aws_id = await in_aws(policies, ours)
    await stranger.detach_policy(PolicyId=aws_id, TargetId=unit)
    await stranger.delete_policy(PolicyId=aws_id)
    await compare(world)
    [drift] = await policies.drift(ours)
    assert (drift.kind, aws_id in drift.detail) == ("POLICY_MISSING", True)


async def test_managed_policies_count_and_those_of_strangers_do_not(
    world: World, policies: Policies, unit: str, stranger: "OrganizationsClient"
) -> None:
    async with transaction(world.engine) as session:
        protection = (
            await session.scalars(
                select(Policy).where(Policy.tenancy_id == world.tenancy_id, Policy.name == "freehold-protection")
            )
        ).one()
    root = (await world.tenancy()).aws_root_id
    assert protection.aws_policy_id is not None
    assert root is not None
    await stranger.detach_policy(PolicyId=protection.aws_policy_id, TargetId=root)
    made = await stranger.create_policy(
        Name=f"Stranger {uuid4().hex}", Description="", Type="SERVICE_CONTROL_POLICY", Content=json.dumps(DOCUMENT)
    )
    theirs = made["Policy"]["PolicySummary"]["Id"]
    await stranger.attach_policy(PolicyId=theirs, TargetId=unit)
    asked: set[str] = set()

    async with world.aws.client("organizations", "us-east-1") as organizations:

        def note(params: dict[str, Any], **_: object) -> None:
            asked.add(json.loads(params["body"])["PolicyId"])

        organizations.meta.events.register("before-call.organizations.DescribePolicy", note)
        try:
            await compare(world)
        finally:
            organizations.meta.events.unregister("before-call.organizations.DescribePolicy", note)
    assert protection.aws_policy_id in asked
    assert asked == await at_rest(world)
    assert not asked & {theirs, "p-FullAWSAccess"}
    assert await kinds(policies, protection.id) == ["DETACHED"]
    await policies.mend(protection.id)
    assert await policies.roll_out(protection.id) == {"AttachPolicy": 1}
    assert root in await policies.targets(protection.id)
    assert (await policies.get(protection.id)).version == protection.version
    await stranger.detach_policy(PolicyId=theirs, TargetId=unit)
    await stranger.delete_policy(PolicyId=theirs)


async def test_targets_beyond_the_first_page_are_seen(
    world: World, policies: Policies, stranger: "OrganizationsClient"
) -> None:
    types = [await world.account_type(f"Page {number} {uuid4().hex[:6]}") for number in range(22)]
    for each in types:
        await world.keep_unit(each)
    policy_id = await policies.create(*(Target(account_type_id=each) for each in types))
    await policies.roll_out(policy_id)
    aws_id, last = await in_aws(policies, policy_id), await unit_of(world, types[-1])
    await compare(world)
    assert await policies.drift(policy_id) == []
    await stranger.detach_policy(PolicyId=aws_id, TargetId=last)
    await compare(world)
    assert [(each.kind, each.aws_target_id) for each in await policies.drift(policy_id)] == [("DETACHED", last)]
    await put_away(policies, policy_id)
    # Other tests count the pages of units.
    for each in types:
        async with transaction(world.engine) as session:
            await delete_account_type(session, world.tenancy_id, each)
        await world.keep_unit(each)


async def test_what_is_under_way_or_refused_is_no_drift(
    world: World, policies: Policies, ours: UUID, target: Target, hardened: UUID
) -> None:
    waiting = await policies.create(target)
    limit = "MAX_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED"
    world.proxy.fail("AttachPolicy", refuse("ConstraintViolationException", Reason=limit))
    failed = await policies.create(target)
    await policies.roll_out(failed)
    assert await policies.states(failed) == ["ACTIVE", "FAILED"]
    await policies.detach(ours, target)
    await compare(world)
    for policy_id in (waiting, failed, ours):
        assert await policies.drift(policy_id) == []
    await policies.roll_out(ours)
    for policy_id in (waiting, failed):
        await put_away(policies, policy_id)


async def test_what_else_is_changed_of_a_policy_whose_last_update_was_refused_is_found(
    world: World, policies: Policies, ours: UUID, unit: str, hardened: UUID, stranger: "OrganizationsClient"
) -> None:
    aws_id, number = await in_aws(policies, ours), (await world.account(hardened)).aws_account_id
    assert number is not None
    world.proxy.fail("UpdatePolicy", *[refuse("MalformedPolicyDocumentException")] * 2)
    await policies.update(ours, document=OTHER)
    await policies.roll_out(ours)
    await compare(world)
    assert await policies.states(ours) == ["FAILED", "ACTIVE"]
    assert await policies.drift(ours) == []
    await stranger.detach_policy(PolicyId=aws_id, TargetId=unit)
    await stranger.attach_policy(PolicyId=aws_id, TargetId=number)
    await compare(world)
    assert [(each.kind, each.aws_target_id) for each in await policies.drift(ours)] == [
        ("ATTACHED_ELSEWHERE", number),
        ("DETACHED", unit),
    ]
    failed = await policies.get(ours)
    assert (failed.state, failed.error_code) == ("FAILED", "MalformedPolicyDocumentException")
    # Its version is refused once more and what was detached is attached; the other target waits for a version in force.
    await policies.mend(ours)
    assert await policies.roll_out(ours) == {"UpdatePolicy": 1, "AttachPolicy": 1}
    assert await policies.states(ours) == ["FAILED", "ACTIVE"]
    assert [(each.kind, each.mending) for each in await policies.drift(ours)] == [("ATTACHED_ELSEWHERE", True)]
    for each in (unit, number):
        await stranger.detach_policy(PolicyId=aws_id, TargetId=each)
    await stranger.delete_policy(PolicyId=aws_id)
    await compare(world)
    assert await kinds(policies, ours) == ["POLICY_MISSING"]


async def test_a_changed_document_is_still_told_of_a_policy_whose_next_update_was_refused(
    world: World, policies: Policies, ours: UUID, stranger: "OrganizationsClient", caplog: pytest.LogCaptureFixture
) -> None:
    await stranger.update_policy(PolicyId=await in_aws(policies, ours), Content=json.dumps(OTHER))
    await compare(world)
    world.proxy.fail("UpdatePolicy", refuse("MalformedPolicyDocumentException"))
    await policies.update(ours, description="newer")
    await policies.roll_out(ours)
    caplog.set_level(logging.INFO)
    await compare(world)
    assert await kinds(policies, ours) == ["DOCUMENT_CHANGED"]
    assert "this is no longer so" not in caplog.text
    await policies.retry(ours)
    await policies.roll_out(ours)
    assert await policies.states(ours) == ["ACTIVE", "ACTIVE"]
    assert await policies.drift(ours) == []


async def test_a_closed_account_may_have_lost_its_policies(
    world: World, policies: Policies, hardened: UUID, stranger: "OrganizationsClient"
) -> None:
    policy_id = await policies.create(Target(account_id=hardened))
    await policies.roll_out(policy_id)
    number = (await world.account(hardened)).aws_account_id
    assert number is not None
    await stranger.detach_policy(PolicyId=await in_aws(policies, policy_id), TargetId=number)
    await world.change(hardened, status=AccountStatus.CLOSED)
    try:
        await compare(world)
        assert await policies.drift(policy_id) == []
    finally:
        await world.change(hardened, status=AccountStatus.ACTIVE)
    await compare(world)
    assert await kinds(policies, policy_id) == ["DETACHED"]
    await put_away(policies, policy_id)


@pytest.mark.parametrize("content", ["no JSON", "[1]", "[" * 5000, '{"Version": "\\ud800"}'])
async def test_whatever_aws_holds_is_told(world: World, policies: Policies, ours: UUID, content: str) -> None:
    summary = {"Id": await in_aws(policies, ours), "Name": (await policies.get(ours)).name, "Description": "d"}
    body: dict[str, object] = {"Policy": {"PolicySummary": summary, "Content": content}}
    # It is the newest, and so the last.
    others = len(await at_rest(world)) - 1

    world.proxy.fail("DescribePolicy", *[pass_on] * others, answer(body))
    await compare(world)
    [drift] = await policies.drift(ours)
    assert (drift.kind, drift.document) == ("DOCUMENT_CHANGED", None)
    assert drift.detail == "Somebody has changed its document in AWS."


# When it is compared


@pytest.mark.parametrize("call", READS)
@pytest.mark.parametrize("finished", [True, False])
async def test_a_policy_that_is_changed_through_freehold_meanwhile_has_not_drifted(
    world: World, policies: Policies, ours: UUID, target: Target, call: str, finished: bool
) -> None:
    others = len(await at_rest(world)) - 1
    held = Held()

    world.proxy.fail(call, *[pass_on] * others, held)
    comparing = asyncio.create_task(compare(world))
    async with asyncio.timeout(10):
        await held.reached.wait()
    await policies.update(ours, document=OTHER, name=f"Renamed {uuid4().hex}")
    await policies.detach(ours, target)
    if finished:
        await policies.roll_out(ours)
    held.release()
    calls = await comparing
    assert await policies.drift(ours) == []
    # Read again where it has come to rest, and left alone where it has not.
    assert calls["DescribePolicy"] == others + (2 if finished else 1)
    if not finished:
        await policies.roll_out(ours)


async def test_a_policy_that_never_rests_does_not_hold_up_the_others(world: World, policies: Policies) -> None:
    first, second = await policies.create(), await policies.create()
    for each in (first, second):
        await policies.roll_out(each)
    others = len(await at_rest(world)) - 2

    async def change(_: object, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
        result = await forward()
        await policies.update(first, description=uuid4().hex)
        async with transaction(world.engine) as session:
            await session.execute(
                update(Policy).where(Policy.id == first).values(state=PolicyState.ACTIVE, next_attempt_at=None)
            )
        return result

    world.proxy.fail("ListTargetsForPolicy", *[pass_on] * others, *[change] * 3)
    calls = await compare(world)
    assert calls["ListTargetsForPolicy"] == others + 4
    assert (await policies.drift(first), await policies.drift(second)) == ([], [])
    assert (await comparison_of(world)).checked_at is not None
    for each in (first, second):
        await put_away(policies, each)


async def test_two_workers_at_once_compare_once(world: World, policies: Policies, ours: UUID) -> None:
    async with transaction(world.engine) as session:
        await request_comparison(session, world.tenancy_id)
    comparison = await comparison_of(world)
    requested_at = comparison.requested_at
    assert requested_at is not None
    claims = await asyncio.gather(*(claim(world.engine, COMPARISON, comparison.id) for _ in range(8)))
    [lease] = [each for each in claims if each is not None]
    await lease.give_back()
    before = world.proxy.calls.copy()
    asked = len(await at_rest(world))

    async def compared() -> bool:
        found = await comparison_of(world)
        return found.checked_at is not None and found.checked_at > requested_at

    async with working(world.settings), working(world.settings):
        await until(compared, within=30)
    calls = world.proxy.calls - before
    assert {call: calls[call] for call in READS} == dict.fromkeys(READS, asked)
    found = await comparison_of(world)
    assert found.next_attempt_at is not None
    assert found.checked_at is not None
    # As the setting has it, which here is the default.
    assert EVERY - timedelta(minutes=1) < found.next_attempt_at - found.checked_at < EVERY + timedelta(minutes=1)


async def test_what_a_dead_worker_has_not_read_the_next_one_reads(world: World, policies: Policies, ours: UUID) -> None:
    asked = len(await at_rest(world))
    assert asked > 2, "the managed policies and one more"
    held = Held()

    world.proxy.fail("DescribePolicy", pass_on, pass_on, held)
    lease = await requested(world)
    began = world.proxy.calls.copy()
    comparing = asyncio.create_task(Comparisons(world.engine, world.aws, EVERY).run(lease))
    async with asyncio.timeout(10):
        await held.reached.wait()
    comparing.cancel()
    await asyncio.wait([comparing])
    started_at = (await comparison_of(world)).started_at
    await set_comparison(world, lease_until=func.now() - timedelta(seconds=1))
    again = await claim(world.engine, COMPARISON, lease.row_id)
    assert again is not None
    await run(world, again)
    assert (world.proxy.calls - began)["DescribePolicy"] == asked + 1
    assert (await comparison_of(world)).checked_at == started_at


async def test_who_asks_while_it_is_under_way_gets_another_one(world: World, policies: Policies, ours: UUID) -> None:
    held = Held()
    world.proxy.fail("DescribePolicy", held)
    lease = await requested(world)
    comparing = asyncio.create_task(run(world, lease))
    async with asyncio.timeout(10):
        await held.reached.wait()
    async with transaction(world.engine) as session:
        asked_at = await request_comparison(session, world.tenancy_id)
    held.release()
    await comparing
    checked_at = (await comparison_of(world)).checked_at
    assert checked_at is not None
    assert checked_at < asked_at
    again = await claim(world.engine, COMPARISON, lease.row_id)
    assert again is not None
    await run(world, again)
    found = await comparison_of(world)
    assert found.checked_at is not None
    assert found.checked_at >= asked_at
    async with transaction(world.engine) as session:
        assert await request_comparison(session, world.tenancy_id, 3600) == found.checked_at
    assert (await comparison_of(world)).requested_at is None
    assert await claim(world.engine, COMPARISON, lease.row_id) is None


async def test_switched_off_it_is_only_done_when_somebody_asks(world: World, ours: UUID) -> None:
    await set_comparison(world, next_attempt_at=func.now(), requested_at=None, lease_until=None)
    lease = await claim(world.engine, COMPARISON, (await comparison_of(world)).id)
    assert lease is not None
    assert await run(world, lease, None) == {}
    assert (await comparison_of(world)).next_attempt_at is None
    assert (await run(world, await requested(world), None))["DescribePolicy"] > 0
    assert (await comparison_of(world)).next_attempt_at is None
    async with transaction(world.engine) as session:
        await schedule_comparisons(session, None)
    assert (await comparison_of(world)).next_attempt_at is None
    # And on again.
    async with transaction(world.engine) as session:
        await schedule_comparisons(session, EVERY)
    again = await claim(world.engine, COMPARISON, lease.row_id)
    assert again is not None
    assert (await run(world, again))["DescribePolicy"] > 0


async def test_an_error_that_passes_is_waited_for_and_another_is_told(
    world: World, policies: Policies, ours: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    before = (await comparison_of(world)).checked_at
    world.proxy.fail("DescribePolicy", *[refuse("TooManyRequestsException")] * 3)
    lease = await requested(world)
    await run(world, lease)
    waiting = await comparison_of(world)
    assert (waiting.attempts, waiting.lease_until, waiting.checked_at) == (1, None, before)
    assert waiting.requested_at is not None
    assert waiting.next_attempt_at is not None
    assert waiting.next_attempt_at - waiting.requested_at < timedelta(minutes=1)
    await set_comparison(world, next_attempt_at=func.now())
    again = await claim(world.engine, COMPARISON, lease.row_id)
    assert again is not None
    others = len(await at_rest(world)) - 1
    world.proxy.fail("ListTargetsForPolicy", *[pass_on] * others, refuse("AccessDeniedException"))
    caplog.clear()
    await run(world, again)
    label = f"comparison of the policies of tenancy ten_{world.tenancy_id.hex}"
    policy = f"The policy {(await policies.get(ours)).name!r} (pol_{ours.hex}) was not compared."
    told = f"{policy} AWS does not allow Freehold"
    assert f"{label} with AWS goes on without a policy: AccessDeniedException: {told}" in caplog.text
    assert "have the policies checked again" in caplog.text
    ended = await comparison_of(world)
    assert (ended.requested_at, ended.started_at, ended.attempts) == (None, None, 0)
    # Whoever waits for it waits no longer, and sees what was refused.
    assert ended.checked_at is not None
    assert ended.checked_at >= waiting.requested_at
    assert ended.next_attempt_at is not None
    assert (ended.error_code, ended.error_class) == ("AccessDeniedException", "NEEDS_PERSON")
    assert ended.error_message is not None
    assert ended.error_message.startswith(told)


async def test_a_policy_that_aws_refuses_to_tell_of_does_not_hide_the_drift_of_the_others(
    world: World, policies: Policies, ours: UUID, target: Target, unit: str, stranger: "OrganizationsClient"
) -> None:
    newer = await policies.create(target)
    await policies.roll_out(newer)
    for each in (ours, newer):
        await stranger.detach_policy(PolicyId=await in_aws(policies, each), TargetId=unit)
    before = len(await at_rest(world)) - 2
    world.proxy.fail("ListTargetsForPolicy", *[pass_on] * before, refuse("AccessDeniedException"))
    await compare(world)
    assert (await kinds(policies, ours), await kinds(policies, newer)) == ([], ["DETACHED"])
    refused = await comparison_of(world)
    assert refused.error_code == "AccessDeniedException"
    # What is known of a policy stays known while AWS tells nothing of it, and the error until it tells everything.
    world.proxy.fail("DescribePolicy", *[pass_on] * (before + 1), refuse("AccessDeniedException"))
    await compare(world)
    assert (await kinds(policies, ours), await kinds(policies, newer)) == (["DETACHED"], ["DETACHED"])
    again = await comparison_of(world)
    assert again.refused_at is not None
    assert refused.refused_at is not None
    assert again.refused_at > refused.refused_at
    await compare(world)
    told = await comparison_of(world)
    assert (told.error_code, told.error_message, told.error_class, told.refused_at) == (None, None, None, None)
    await put_away(policies, newer)


async def test_a_comparison_that_cannot_even_begin_ends_with_the_error(
    world: World, ours: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise StageStopped(StageError("Broken", "It is broken.", StageErrorClass.PERMANENT))

    lease = await requested(world)
    asked = (await comparison_of(world)).requested_at
    assert asked is not None
    with monkeypatch.context() as patched:
        patched.setattr("workers.policies.comparison.drift.next_reading", broken)
        assert await run(world, lease) == {}
    ended = await comparison_of(world)
    assert (ended.error_code, ended.error_message) == ("Broken", "It is broken.")
    assert ended.checked_at is not None
    assert ended.checked_at >= asked
    assert ended.next_attempt_at is not None
    await compare(world)
    assert (await comparison_of(world)).error_code is None


async def test_an_error_of_our_own_does_not_end_the_worker(
    world: World, ours: UUID, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr("workers.policies.comparison._read", broken)
        await run(world, await requested(world))
    assert "RuntimeError: broken" in caplog.text
    assert (await comparison_of(world)).attempts == 1


# How it is mended


async def test_a_changed_document_is_written_back(
    world: World, policies: Policies, ours: UUID, stranger: "OrganizationsClient"
) -> None:
    policy = await policies.get(ours)
    await stranger.update_policy(
        PolicyId=await in_aws(policies, ours), Name=f"Theirs {uuid4().hex}", Content=json.dumps(OTHER)
    )
    await compare(world)
    await policies.mend(ours)
    assert await policies.states(ours) == ["PENDING", "ACTIVE"]
    assert [each.mending for each in await policies.drift(ours)] == [True]
    with pytest.raises(Refused, match="is being rolled out"):
        await policies.mend(ours)
    assert await policies.roll_out(ours) == {"UpdatePolicy": 1}
    assert await policies.states(ours) == ["ACTIVE", "ACTIVE"]
    assert await policies.drift(ours) == []
    [found] = await policies.in_aws(policy.name)
    assert json.loads(found["content"]) == DOCUMENT
    assert (await policies.get(ours)).version == 1
    with pytest.raises(Refused, match="No drift of the policy"):
        await policies.mend(ours)
    await compare(world)
    assert await policies.drift(ours) == []


async def test_a_deleted_policy_is_made_again(
    world: World, policies: Policies, ours: UUID, unit: str, stranger: "OrganizationsClient"
) -> None:
    aws_id = await in_aws(policies, ours)
    await stranger.detach_policy(PolicyId=aws_id, TargetId=unit)
    await stranger.delete_policy(PolicyId=aws_id)
    await compare(world)
    await policies.mend(ours)
    assert await policies.roll_out(ours) == {"UpdatePolicy": 1, "CreatePolicy": 1, "AttachPolicy": 1}
    assert await policies.states(ours) == ["ACTIVE", "ACTIVE"]
    assert await policies.targets(ours) == [unit]
    assert await policies.drift(ours) == []


async def test_attachments_are_made_as_they_were(
    world: World, policies: Policies, ours: UUID, unit: str, hardened: UUID, stranger: "OrganizationsClient"
) -> None:
    aws_id, number = await in_aws(policies, ours), (await world.account(hardened)).aws_account_id
    assert number is not None
    await stranger.attach_policy(PolicyId=aws_id, TargetId=number)
    await stranger.detach_policy(PolicyId=aws_id, TargetId=unit)
    await compare(world)
    assert await kinds(policies, ours) == ["ATTACHED_ELSEWHERE", "DETACHED"]
    events = (await policies.get(ours)).last_seq
    await policies.mend(ours)
    assert await policies.states(ours) == ["ACTIVE", "PENDING"]
    assert await policies.roll_out(ours) == {"AttachPolicy": 1, "DetachPolicy": 1}
    assert await policies.targets(ours) == [unit]
    assert await policies.states(ours) == ["ACTIVE", "ACTIVE"]
    assert await policies.drift(ours) == []
    assert (await policies.events(ours))[events:] == [
        ("ACTIVE", None),
        ("ACTIVE", "PENDING"),
        ("ACTIVE", "ACTIVE"),
        ("ACTIVE", None),
    ]


async def test_what_aws_does_not_let_go_is_told_and_tried_again(
    world: World, policies: Policies, ours: UUID, hardened: UUID, stranger: "OrganizationsClient"
) -> None:
    aws_id, number = await in_aws(policies, ours), (await world.account(hardened)).aws_account_id
    assert number is not None
    await stranger.attach_policy(PolicyId=aws_id, TargetId=number)
    await compare(world)
    await policies.mend(ours)
    world.proxy.fail("DetachPolicy", *[refuse("ConcurrentModificationException")] * 3)
    await policies.roll_out(ours)
    waiting = await policies.get(ours)
    assert (waiting.state, waiting.error_code, waiting.attempts) == ("ACTIVE", "ConcurrentModificationException", 1)
    await policies.make_due(ours)
    world.proxy.reset()
    world.proxy.fail("DetachPolicy", refuse("AccessDeniedException"))
    await policies.roll_out(ours)
    refused = await policies.get(ours)
    assert (refused.state, refused.error_code) == ("ACTIVE", "AccessDeniedException")
    assert refused.next_attempt_at is None
    await compare(world)
    assert (await policies.get(ours)).error_code == "AccessDeniedException"
    await policies.retry(ours)
    assert await policies.roll_out(ours) == {"DetachPolicy": 1}
    assert ((await policies.get(ours)).error_code, await policies.drift(ours)) == (None, [])
    # Refused once more, and then put right in AWS by somebody: the error goes with what it was about.
    await stranger.attach_policy(PolicyId=aws_id, TargetId=number)
    await compare(world)
    await policies.mend(ours)
    world.proxy.fail("DetachPolicy", refuse("AccessDeniedException"))
    await policies.roll_out(ours)
    await stranger.detach_policy(PolicyId=aws_id, TargetId=number)
    await compare(world)
    assert ((await policies.get(ours)).error_code, await policies.drift(ours)) == (None, [])


async def test_what_somebody_attaches_through_freehold_meanwhile_is_not_detached(
    world: World, policies: Policies, ours: UUID, hardened: UUID, stranger: "OrganizationsClient"
) -> None:
    aws_id, number = await in_aws(policies, ours), (await world.account(hardened)).aws_account_id
    assert number is not None
    await stranger.attach_policy(PolicyId=aws_id, TargetId=number)
    await compare(world)
    await policies.mend(ours)
    await policies.attach(ours, Target(account_id=hardened))
    assert await policies.roll_out(ours) == {"AttachPolicy": 1}
    assert number in await policies.targets(ours)
    assert await policies.drift(ours) == []
    assert await policies.states(ours) == ["ACTIVE", "ACTIVE", "ACTIVE"]


async def test_a_worker_that_dies_in_the_middle_of_a_mending_leaves_it_to_the_next(
    world: World,
    policies: Policies,
    target: Target,
    unit: str,
    hardened: UUID,
    stranger: "OrganizationsClient",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = (await world.account(hardened)).aws_account_id
    assert number is not None

    async def drifted() -> UUID:
        policy_id = await policies.create(target)
        await policies.roll_out(policy_id)
        aws_id = await in_aws(policies, policy_id)
        await stranger.update_policy(PolicyId=aws_id, Content=json.dumps(OTHER))
        await stranger.attach_policy(PolicyId=aws_id, TargetId=number)
        await stranger.detach_policy(PolicyId=aws_id, TargetId=unit)
        await compare(world)
        assert len(await policies.drift(policy_id)) == 3
        await policies.mend(policy_id)
        return policy_id

    async def mended(policy_id: UUID) -> None:
        assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
        [found] = await policies.in_aws((await policies.get(policy_id)).name)
        assert (json.loads(found["content"]), found["targets"]) == (DOCUMENT, [unit])
        assert await policies.drift(policy_id) == []
        await policies.detach(policy_id, target)
        await policies.roll_out(policy_id)

    places = await roll_out_dying(world, policies, monkeypatch, drifted, mended)
    assert [place for place in places if "before" in place] == [
        "before-call UpdatePolicy",
        "before-call AttachPolicy",
        "before-call DetachPolicy",
    ]


async def test_what_was_found_goes_with_the_policy(
    world: World, policies: Policies, stranger: "OrganizationsClient"
) -> None:
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    await stranger.update_policy(PolicyId=await in_aws(policies, policy_id), Content=json.dumps(OTHER))
    await compare(world)
    assert await kinds(policies, policy_id) == ["DOCUMENT_CHANGED"]
    await policies.delete(policy_id)
    await policies.roll_out(policy_id)
    assert await policies.drift(policy_id) == []


async def test_a_newer_version_puts_a_changed_document_right(
    world: World, policies: Policies, ours: UUID, stranger: "OrganizationsClient"
) -> None:
    await stranger.update_policy(PolicyId=await in_aws(policies, ours), Content=json.dumps(OTHER))
    await compare(world)
    await policies.update(ours, description="newer")
    await policies.roll_out(ours)
    assert await policies.drift(ours) == []


async def test_every_permission_of_a_comparison_is_declared_and_used(world: World, ours: UUID) -> None:
    assert {f"organizations:{call}" for call in await compare(world)} == set(PERMISSIONS)
    assert list(PERMISSIONS) == sorted(PERMISSIONS)
