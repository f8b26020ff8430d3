"""Access to accounts as tests arrange it, undo it and look at it in AWS."""

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from server.access.grants import Grant, Revocation, set_account_type_access
from server.access.models import AccessRole, AccountAccess, Group
from server.access.service import create_group
from server.assurance.governance import govern
from server.database import transaction
from tests.workers.world import World
from workers.assurance.roles import PATH
from workers.assurance.run import Run
from workers.assurance.stage import StageStopped

READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"
ANYBODY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}


async def group(world: World, name: str) -> Group:
    async with transaction(world.engine) as session:
        return await create_group(session, world.tenancy_id, name)


async def change(world: World, type_id: UUID, *grants: Grant, revoke: tuple[Revocation, ...] = ()) -> None:
    async with transaction(world.engine) as session:
        await set_account_type_access(session, world.tenancy_id, type_id, grants, revoke)


async def begin(world: World, account_id: UUID) -> UUID:
    """Begin the GOVERN setup that is due; its id."""
    async with transaction(world.engine) as session:
        assert await govern(session, world.tenancy_id, account_id)
    return (await world.setup_of(account_id)).id


async def rows(world: World, account_id: UUID) -> dict[tuple[UUID, str], AccountAccess]:
    found = select(AccountAccess).where(AccountAccess.account_id == account_id)
    async with transaction(world.engine) as session:
        return {(row.group_id, row.role.value): row for row in await session.scalars(found)}


async def states(world: World, account_id: UUID) -> dict[str, tuple[str, str]]:
    """Cause and state of each role in the account, for accounts with one group."""
    return {role: (row.cause.value, row.state.value) for (_, role), row in (await rows(world, account_id)).items()}


async def roles(world: World, account_id: UUID) -> dict[str, dict[str, Any]]:
    """Freehold's roles in the account, as AWS has them: each with its policies."""
    number = (await world.account(account_id)).aws_account_id
    assert number is not None
    credentials = await world.aws.assume(number, "us-east-1")
    found: dict[str, dict[str, Any]] = {}
    async with world.aws.client("iam", "us-east-1", credentials) as iam:
        for each in (await iam.list_roles(PathPrefix=PATH))["Roles"]:
            name = each["RoleName"]
            attached = (await iam.list_attached_role_policies(RoleName=name))["AttachedPolicies"]
            inline = (await iam.list_role_policies(RoleName=name))["PolicyNames"]
            role = (await iam.get_role(RoleName=name))["Role"]
            policies = [*(policy["PolicyArn"] for policy in attached), *inline]
            found[name] = {**role, "policies": policies}
    return found


async def tamper(run: Run, name: str) -> None:
    """Undo all that can be undone of a role, and hide a role of one's own beside it."""
    async with run.member("iam") as iam:
        await iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(ANYBODY))
        await iam.update_role(RoleName=name, MaxSessionDuration=7200)
        await iam.untag_role(RoleName=name, TagKeys=["freehold:group"])
        await iam.attach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/PowerUserAccess")
        await iam.put_role_policy(RoleName=name, PolicyName="more", PolicyDocument=json.dumps(ANYTHING))
        await iam.tag_role(RoleName=name, Tags=[{"Key": "department", "Value": "finance"}])
        await iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=READ_ONLY)
        await iam.create_role(RoleName="hidden", Path=PATH, AssumeRolePolicyDocument=json.dumps(ANYBODY))
    await hang_on(run, "hidden")


async def move_below(run: Run, name: str) -> None:
    """The role as it is, but further below the path."""
    async with run.member("iam") as iam:
        role = (await iam.get_role(RoleName=name))["Role"]
        await iam.detach_role_policy(RoleName=name, PolicyArn=READ_ONLY)
        await iam.delete_role(RoleName=name)
        await iam.create_role(
            Path=f"{PATH}below/",
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(role["AssumeRolePolicyDocument"]),
            Description=role["Description"],
            Tags=role["Tags"],
        )
        await iam.attach_role_policy(RoleName=name, PolicyArn=READ_ONLY)


async def hang_on(run: Run, name: str) -> None:
    """Hang everything on a role that keeps IAM from deleting it."""
    async with run.member("iam") as iam:
        await iam.attach_role_policy(RoleName=name, PolicyArn=READ_ONLY)
        await iam.put_role_policy(RoleName=name, PolicyName="more", PolicyDocument=json.dumps(ANYTHING))
        await iam.create_instance_profile(InstanceProfileName=name)
        await iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


async def use_every_call(world: World) -> None:
    """An account over everything that the stage does."""
    type_id = await world.account_type("Every call of access")
    account_id, setup_id = await world.request("Every call of access", type_id)
    await world.complete(setup_id)
    made = await group(world, "Every call of access")
    await change(world, type_id, Grant(made.id, AccessRole.READONLY))
    setup_id = await begin(world, account_id)
    async with world.holding(setup_id) as run:
        await world.assure(run, "access")
        await tamper(run, f"freehold-readonly-{made.slug}")
        await world.assure(run, "access")
        await change(world, type_id, Grant(made.id, AccessRole.ADMIN, "arn:aws:iam::{account}:policy/Lacking"))
        with pytest.raises(StageStopped):
            await world.assure(run, "access")
        await change(world, type_id, revoke=(Revocation(made.id),))
        await hang_on(run, f"freehold-admin-{made.slug}")
        await world.assure(run, "withdrawn_access")
    await world.complete(setup_id)
