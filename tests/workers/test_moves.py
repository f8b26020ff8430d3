"""Accounts that join a type: never without the policies of the type that they are of, or of the one before."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Literal
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from sqlalchemy import delete

from server.assurance.models import SetupKind, SetupStatus, StageStatus
from server.assurance.requests import retry_account_setup, update_account
from server.database import transaction
from server.leases import StageErrorClass
from server.policies.requests import Target
from server.tenancies.models import OrganizationTurn
from tests.workers.deaths import die_everywhere
from tests.workers.proxies import Fault, Held, lose_answer, lose_request, refuse
from tests.workers.rollouts import Policies
from tests.workers.test_units import get, in_aws, rename
from tests.workers.test_worker import worker_process
from tests.workers.world import World
from workers.assurance.protection import POLICY_TYPE
from workers.aws.session import QUARANTINE_SECONDS, Aws
from workers.main import working

STAGE = "organizational_unit"


class Line(asyncio.Lock):
    """Where those of one worker wait for their turn at an organization; tells when somebody has come."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        self.joined.set()
        return await super().acquire()


@pytest.fixture
def policies(world: World) -> Policies:
    return Policies(world)


@pytest.fixture(scope="session")
async def mover(bootstrapped: World) -> UUID:
    """The id of an account that the tests move about."""
    account_id, setup_id = await bootstrapped.request("Mover", await bootstrapped.account_type("Moves from here"))
    await bootstrapped.complete(setup_id)
    return account_id


async def new_type(world: World) -> UUID:
    """The id of a type that has its unit."""
    type_id = await world.account_type(f"Joined {uuid4().hex}")
    await world.keep_unit(type_id)
    return type_id


async def move(world: World, account_id: UUID, type_id: UUID, *stages: str) -> UUID:
    """Ask for another type, as the API does; the id of the setup that moves the account."""
    async with transaction(world.engine) as session:
        await update_account(session, world.tenancy_id, account_id, account_type_id=type_id)
    setup = await world.setup_of(account_id)
    assert (setup.kind, setup.status) == (SetupKind.REASSURE, SetupStatus.PENDING)
    if stages:
        await world.replace_stages(setup.id, *stages)
    return setup.id


async def unit_in_aws(world: World, account_id: UUID) -> str:
    number = (await world.account(account_id)).aws_account_id
    assert number is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        return (await organizations.list_parents(ChildId=number))["Parents"][0]["Id"]


async def policies_at(world: World, unit_id: str) -> set[str]:
    """The ids of the policies at a unit, but for AWS's own; by another client than that of the worker."""
    async with world.aws.client("organizations", "eu-west-1") as organizations:
        pages = organizations.get_paginator("list_policies_for_target").paginate(TargetId=unit_id, Filter=POLICY_TYPE)
        return {each["Id"] async for page in pages for each in page["Policies"] if not each["AwsManaged"]}


def watching(world: World, seen: list[set[str]]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A look, at the moment of MoveAccount, at what is in force in the unit that the account moves to."""

    async def look(request: web.Request, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
        seen.append(await policies_at(world, (await request.json())["DestinationParentId"]))
        return await forward()

    return look


async def test_an_account_moves_when_the_policies_of_its_new_type_are_in_force(
    world: World, policies: Policies, mover: UUID
) -> None:
    before, type_id, seen = await unit_in_aws(world, mover), await new_type(world), list[set[str]]()
    wanted = [await policies.create(Target(account_type_id=type_id), name=f"Wanted {n} {uuid4().hex}") for n in (1, 2)]
    await policies.roll_out(wanted[0])
    setup_id = await move(world, mover, type_id)
    world.proxy.fail("MoveAccount", watching(world, seen))
    for _ in range(2):
        assert (await world.run(setup_id)).status is SetupStatus.WAITING
        stage = (await world.stages(setup_id))[STAGE]
        assert (stage.error_code, stage.error_class) == ("POLICIES_PENDING", StageErrorClass.TRANSIENT)
        assert (await policies.get(wanted[1])).name in str(stage.error_message)
        assert (await policies.get(wanted[0])).name not in str(stage.error_message)
        assert stage.next_attempt_at is not None
        assert await unit_in_aws(world, mover) == before
        await world.make_due(setup_id)
    await policies.roll_out(wanted[1])
    await world.complete(setup_id)
    assert await unit_in_aws(world, mover) == (await world.type_of(mover)).organizational_unit_id
    assert seen == [{str((await policies.get(policy_id)).aws_policy_id) for policy_id in wanted}]


async def test_a_new_account_joins_its_type_when_the_policies_are_in_force(world: World, policies: Policies) -> None:
    type_id, seen = await world.account_type(f"New {uuid4().hex}"), list[set[str]]()
    policy_id = await policies.create(Target(account_type_id=type_id))
    account_id, setup_id = await world.request(f"New {uuid4().hex[:8]}", type_id)
    world.proxy.fail("MoveAccount", watching(world, seen))
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    stages = await world.stages(setup_id)
    assert stages[STAGE].error_code == "POLICIES_PENDING"
    # Made by the stage; what is attached to the type follows.
    unit_id = (await world.type_of(account_id)).organizational_unit_id
    assert unit_id is not None
    assert await unit_in_aws(world, account_id) == (await world.tenancy()).aws_root_id
    await policies.roll_out(policy_id)
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert await unit_in_aws(world, account_id) == unit_id
    assert seen == [{str((await policies.get(policy_id)).aws_policy_id)}]


async def test_an_account_stays_where_it_is_when_aws_has_refused_a_policy_of_its_new_type(
    world: World, policies: Policies, mover: UUID
) -> None:
    before, type_id = await unit_in_aws(world, mover), await new_type(world)
    refused = await policies.create(Target(account_type_id=type_id))
    world.proxy.fail("AttachPolicy", refuse("AccessDeniedException"))
    await policies.roll_out(refused)
    assert await policies.states(refused) == ["ACTIVE", "FAILED"]
    never_made = await policies.create(Target(account_type_id=type_id))
    world.proxy.fail("CreatePolicy", refuse("MalformedPolicyDocumentException"))
    await policies.roll_out(never_made)
    assert await policies.states(never_made) == ["FAILED", "PENDING"]
    setup_id = await move(world, mover, type_id)
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    stage = (await world.stages(setup_id))[STAGE]
    assert (stage.error_code, stage.error_class) == ("POLICIES_REFUSED", StageErrorClass.NEEDS_PERSON)
    for policy_id in (refused, never_made):
        assert (await policies.get(policy_id)).name in str(stage.error_message)
    assert await unit_in_aws(world, mover) == before
    await policies.retry(refused)
    await policies.roll_out(refused)
    await policies.detach(never_made, Target(account_type_id=type_id))
    await policies.roll_out(never_made)
    async with transaction(world.engine) as session:
        await retry_account_setup(session, world.tenancy_id, mover)
    await world.complete(setup_id)
    assert await policies_at(world, await unit_in_aws(world, mover)) == {(await policies.get(refused)).aws_policy_id}


async def test_what_somebody_detached_in_aws_is_attached_again_before_an_account_joins(
    world: World, policies: Policies, mover: UUID
) -> None:
    type_id, seen = await new_type(world), list[set[str]]()
    policy_id = await policies.create(Target(account_type_id=type_id))
    await policies.roll_out(policy_id)
    aws_policy_id = (await policies.get(policy_id)).aws_policy_id
    [unit_id] = await policies.targets(policy_id)
    assert aws_policy_id is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.detach_policy(PolicyId=aws_policy_id, TargetId=unit_id)
    setup_id = await move(world, mover, type_id)
    world.proxy.fail("MoveAccount", watching(world, seen))
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    assert await policies.states(policy_id) == ["ACTIVE", "PENDING"]
    assert await policies.roll_out(policy_id) == {"AttachPolicy": 1}
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert seen == [{aws_policy_id}]


@pytest.mark.parametrize("lose", [lose_answer, lose_request])
async def test_a_move_whose_answer_was_lost_is_waited_out_before_anything_else(
    world: World, mover: UUID, lose: Fault
) -> None:
    """AWS may hear it late, when the account has been moved on, and would take it back there."""
    setup_id = await move(world, mover, await new_type(world), "organizational_unit")
    world.proxy.fail("MoveAccount", lose)
    begun = (await world.setup_of(mover)).requested_at
    setup = await world.run(setup_id)
    assert world.proxy.calls["MoveAccount"] == 1
    assert setup.status is SetupStatus.WAITING
    assert setup.next_attempt_at is not None
    assert setup.next_attempt_at - begun >= timedelta(seconds=QUARANTINE_SECONDS)
    assert (await world.stages(setup_id))["organizational_unit"].error_code == "MOVE_OUTCOME_UNKNOWN"
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert world.proxy.calls["MoveAccount"] == (1 if lose is lose_answer else 2)


async def test_what_is_being_detached_is_not_waited_for(world: World, policies: Policies, mover: UUID) -> None:
    type_id = await new_type(world)
    policy_id = await policies.create(Target(account_type_id=type_id))
    await policies.detach(policy_id, Target(account_type_id=type_id))
    await world.complete(await move(world, mover, type_id))
    await policies.roll_out(policy_id)


async def test_a_unit_that_somebody_deleted_is_made_anew_with_its_policies_before_an_account_joins(
    world: World, policies: Policies, mover: UUID
) -> None:
    type_id, seen = await new_type(world), list[set[str]]()
    policy_id = await policies.create(Target(account_type_id=type_id))
    await policies.roll_out(policy_id)
    [gone] = await policies.targets(policy_id)
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.delete_organizational_unit(OrganizationalUnitId=gone)
    setup_id = await move(world, mover, type_id)
    world.proxy.fail("MoveAccount", watching(world, seen))
    codes = []
    for _ in range(2):
        assert (await world.run(setup_id)).status is SetupStatus.WAITING
        codes.append((await world.stages(setup_id))[STAGE].error_code)
        await world.make_due(setup_id)
    assert codes == ["UNIT_GONE", "POLICIES_PENDING"]
    await policies.roll_out(policy_id)
    await world.complete(setup_id)
    assert seen == [{(await policies.get(policy_id)).aws_policy_id}]
    await world.keep_unit(type_id)


async def test_a_unit_that_another_makes_and_renames_before_its_turn_is_the_one_an_account_joins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_id, line = await world.account_type(f"First {uuid4().hex}"), Line()
    account_id, setup_id = await world.request(f"Joins {uuid4().hex[:8]}", type_id)
    before = (await get(world, type_id)).name
    async with world.holding(setup_id) as run, Aws(world.settings) as aws:
        await world.assure(run, "create_account")
        monkeypatch.setitem(world.aws.organization_writes, world.tenancy_id, line)
        async with line:
            line.joined.clear()
            joining = asyncio.create_task(world.assure(run, STAGE))
            async with asyncio.timeout(20):
                await line.joined.wait()
            other_worker = replace(world, aws=aws)
            await other_worker.keep_unit(type_id)
            await rename(world, type_id, f"Second {uuid4().hex}")
            await other_worker.keep_unit(type_id)
            made = await get(world, type_id)
        await joining
    joined = await get(world, type_id)
    assert (joined.organizational_unit_id, joined.aws_name) == (made.organizational_unit_id, made.name)
    assert await unit_in_aws(world, account_id) == made.organizational_unit_id
    assert before not in await in_aws(world)
    await world.complete(setup_id)


async def test_a_unit_made_anew_is_not_forgotten_for_the_one_that_was_missing(world: World, mover: UUID) -> None:
    type_id = await new_type(world)
    gone = (await get(world, type_id)).organizational_unit_id
    assert gone is not None
    held = Held(refuse("DestinationParentNotFoundException"))
    world.proxy.fail("MoveAccount", held)
    setup_id = await move(world, mover, type_id)
    moving = asyncio.create_task(world.run(setup_id))
    async with asyncio.timeout(20):
        await held.reached.wait()
    async with transaction(world.engine) as session:
        await session.execute(delete(OrganizationTurn).where(OrganizationTurn.tenancy_id == world.tenancy_id))
    async with Aws(world.settings) as aws:
        async with aws.client("organizations", "us-east-1") as organizations:
            await organizations.delete_organizational_unit(OrganizationalUnitId=gone)
        await rename(world, type_id, f"Anew {uuid4().hex}")
        await replace(world, aws=aws).keep_unit(type_id)
    anew = (await get(world, type_id)).organizational_unit_id
    assert anew not in (None, gone)
    held.release()
    assert (await moving).status is SetupStatus.WAITING
    assert (await world.stages(setup_id))[STAGE].error_code == "UNIT_GONE"
    assert (await get(world, type_id)).organizational_unit_id == anew
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert await unit_in_aws(world, mover) == anew


async def test_a_worker_that_dies_anywhere_leaves_a_move_to_the_next_one(
    world: World, policies: Policies, mover: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    attached: dict[UUID, str] = {}

    async def arrange() -> UUID:
        type_id = await new_type(world)
        policy_id = await policies.create(Target(account_type_id=type_id))
        await policies.roll_out(policy_id)
        setup_id = await move(world, mover, type_id, STAGE)
        attached[setup_id] = str((await policies.get(policy_id)).aws_policy_id)
        world.proxy.reset()
        world.proxy.fail("MoveAccount", watching(world, seen))
        return setup_id

    async def carry_on(setup_id: UUID) -> None:
        async with transaction(world.engine) as session:
            await session.execute(delete(OrganizationTurn).where(OrganizationTurn.tenancy_id == world.tenancy_id))
        if (await world.setup_of_id(setup_id)).status is not SetupStatus.COMPLETED:
            await world.make_due(setup_id)
            await world.complete(setup_id)

    async def end(setup_id: UUID) -> None:
        assert (await world.setup_of_id(setup_id)).status is SetupStatus.COMPLETED
        assert await unit_in_aws(world, mover) == (await world.type_of(mover)).organizational_unit_id
        assert seen.pop() == {attached[setup_id]}
        assert world.proxy.calls["MoveAccount"] == 1
        assert seen == []

    calls = ("ListPoliciesForTarget", "MoveAccount")
    places = await die_everywhere(
        world, monkeypatch, calls, arrange=arrange, work=world.run, carry_on=carry_on, end=end
    )
    both = [f"{moment} {call}" for call in calls for moment in ("before-call", "after-call")]
    assert places == ["uncommitted", "committed", *both, "uncommitted", "committed"]


async def test_a_worker_killed_while_it_moves_an_account_is_replaced(
    world: World, policies: Policies, mover: UUID
) -> None:
    type_id = await new_type(world)
    policy_id = await policies.create(Target(account_type_id=type_id))
    await policies.roll_out(policy_id)
    held = Held()
    world.proxy.fail("MoveAccount", held)
    async with worker_process(world.settings) as process:
        setup_id = await move(world, mover, type_id)
        async with asyncio.timeout(20):
            await held.reached.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    held.release()
    await world.make_due(setup_id)
    async with transaction(world.engine) as session:
        await session.execute(delete(OrganizationTurn).where(OrganizationTurn.tenancy_id == world.tenancy_id))
    async with working(world.settings):
        await world.until(setup_id, SetupStatus.COMPLETED)
    assert world.proxy.calls["MoveAccount"] == 1
    assert (await world.stages(setup_id))[STAGE].status is StageStatus.COMPLETED
    assert await unit_in_aws(world, mover) == (await world.type_of(mover)).organizational_unit_id
