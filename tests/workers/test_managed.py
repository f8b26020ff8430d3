"""The policies that every tenancy has: written by its bootstrap, brought to AWS, kept current, found again."""

import asyncio
import json
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update

from server.database import minified, transaction
from server.errors import Refused, UserErrorCode
from server.policies.foundation import FOUNDATION_PROTECTION, MANAGED, PROTECTION, Managed, keep_all_managed
from server.policies.models import Policy, PolicyAttachment, PolicyVersion
from server.policies.requests import Target
from server.tenancies.service import ROLE
from tests.server.waiting import until
from tests.workers.rollouts import Policies
from tests.workers.world import World
from workers.main import working


@pytest.fixture
def policies(world: World) -> Policies:
    return Policies(world)


async def managed(world: World, name: str) -> UUID:
    found = select(Policy.id).where(Policy.tenancy_id == world.tenancy_id, Policy.name == name)
    async with transaction(world.engine) as session:
        return (await session.scalars(found)).one()


async def rolled_out(world: World, policies: Policies, name: str) -> UUID:
    policy_id = await managed(world, name)
    if (await policies.get(policy_id)).next_attempt_at is not None:
        # A test before this one has changed its target, or has killed a worker.
        await policies.make_due(policy_id)
        await policies.roll_out(policy_id)
    return policy_id


async def test_the_bootstrap_puts_them_on_the_organization_and_on_its_foundation(
    world: World, policies: Policies
) -> None:
    tenancy = await world.tenancy()
    for each, target in ((PROTECTION, tenancy.aws_root_id), (FOUNDATION_PROTECTION, tenancy.foundation_ou_id)):
        policy_id = await rolled_out(world, policies, each.name)
        assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
        [found] = await policies.in_aws(each.name)
        assert (json.loads(found["content"]), found["targets"]) == (each.document, [target])


@pytest.mark.parametrize("each", MANAGED, ids=lambda each: each.name)
async def test_nobody_changes_them(world: World, policies: Policies, each: Managed) -> None:
    policy_id = await managed(world, each.name)
    for change in (
        policies.update(policy_id, description="mine"),
        policies.delete(policy_id),
        policies.detach(policy_id, Target()),
    ):
        with pytest.raises(Refused) as refused:
            await change
        assert refused.value.errors[0].code is UserErrorCode.PROTECTED


async def test_they_are_brought_up_to_date_when_a_worker_starts(world: World, policies: Policies) -> None:
    policy_id = await rolled_out(world, policies, PROTECTION.name)
    version = (await policies.get(policy_id)).version
    async with transaction(world.engine) as session:
        await session.execute(
            update(Policy).where(Policy.id == policy_id).values(document={"Version": "2012-10-17", "Statement": []})
        )

    async def current() -> bool:
        return (await policies.get(policy_id)).aws_version == version + 1

    async with working(world.settings):
        await until(current, within=20)
    [found] = await policies.in_aws(PROTECTION.name)
    assert json.loads(found["content"]) == PROTECTION.document

    # Nothing more the next time, however many start.
    async def start() -> None:
        async with transaction(world.engine) as session:
            await keep_all_managed(session)

    await asyncio.gather(*(start() for _ in range(3)))
    policy = await policies.get(policy_id)
    assert (policy.version, policy.next_attempt_at) == (version + 1, None)
    async with transaction(world.engine) as session:
        versions = select(func.count()).select_from(PolicyVersion).where(PolicyVersion.policy_id == policy_id)
        assert await session.scalar(versions) == version + 1


async def test_one_of_the_same_name_becomes_managed_on_its_target(world: World, policies: Policies, team: UUID) -> None:
    """Such as one from before its name was Freehold's own."""
    policy_id = await rolled_out(world, policies, PROTECTION.name)
    [attachment] = await policies.attachments(policy_id)
    async with transaction(world.engine) as session:
        await session.execute(
            update(Policy).where(Policy.id == policy_id).values(managed=False, name=PROTECTION.name.upper())
        )
        moved = update(PolicyAttachment).where(PolicyAttachment.id == attachment.id)
        await session.execute(moved.values(account_type_id=team))
    async with transaction(world.engine) as session:
        await keep_all_managed(session)
    policy = await policies.get(policy_id)
    assert (policy.managed, policy.name, policy.state) == (True, PROTECTION.name, "PENDING")
    with pytest.raises(Refused):
        await policies.detach(policy_id, Target())
    await policies.roll_out(policy_id)
    targets = {each.account_type_id: each.state for each in await policies.attachments(policy_id)}
    assert targets[None] == "ACTIVE"
    async with transaction(world.engine) as session:
        await session.execute(delete(PolicyAttachment).where(PolicyAttachment.id == attachment.id))


async def test_another_installation_finds_those_of_the_last(world: World, policies: Policies) -> None:
    policy_id = await rolled_out(world, policies, PROTECTION.name)
    before = (await policies.get(policy_id)).aws_policy_id
    async with transaction(world.engine) as session:
        values = {"aws_policy_id": None, "aws_name": None, "aws_version": None, "state": "PENDING"}
        await session.execute(update(Policy).where(Policy.id == policy_id).values(next_attempt_at=func.now(), **values))
    await policies.roll_out(policy_id)
    assert (await policies.get(policy_id)).aws_policy_id == before
    assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]


def test_they_spare_the_role_that_freehold_works_in() -> None:
    for each in MANAGED:
        for statement in each.document["Statement"]:
            spared = statement.get("Condition") == {"ArnNotLike": {"aws:PrincipalArn": f"arn:*:iam::*:role/{ROLE}"}}
            assert spared or statement["Action"] == "organizations:LeaveOrganization", statement
        # Half of what AWS allows, with room to grow.
        assert len(minified(each.document)) < 5_120
        assert len(each.description) <= 512
