"""The IAM roles of groups, as they are in an account: read, made, kept as they should be, and deleted.

They lie under the path /freehold/. Each trusts the management account alone, and only for sessions that name the group
as their external id: so Freehold can hand out sessions of a group's role to who has shown to be a member of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from botocore.exceptions import ClientError

from server.access.models import AccessRole

if TYPE_CHECKING:
    from types_aiobotocore_iam import IAMClient
    from types_aiobotocore_iam.type_defs import RoleTypeDef, TagTypeDef

PATH: Final = "/freehold/"
DESCRIPTION = "Made by Freehold for a group of users; what is changed here is changed back."
SESSION_SECONDS = 3600
ROLE_NAME_LENGTH = 64

DELETE_PERMISSIONS = (
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "iam:RemoveRoleFromInstanceProfile",
)
MAKE_PERMISSIONS = (
    "iam:AttachRolePolicy",
    "iam:CreateRole",
    "iam:DeleteRolePermissionsBoundary",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:GetPolicy",
    "iam:GetRole",
    "iam:ListAttachedRolePolicies",
    "iam:ListRolePolicies",
    "iam:TagRole",
    "iam:UntagRole",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateRole",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A role as it should be."""

    group_id: UUID
    role: AccessRole
    name: str
    # As the database has it, where {account} stands for the account's number.
    managed_policy_arn: str
    policy_arn: str
    trust: Mapping[str, Any]
    tags: Mapping[str, str]


class PolicyMissing(Exception):
    """The account has no managed policy of the ARN."""


class NameTaken(Exception):
    """The account has a role of the name that does not lie under PATH, so it is somebody else's."""


def role_name(role: AccessRole, slug: str) -> str:
    """The name of the IAM role of a group, whose slug it ends with."""
    name = f"freehold-{role.lower()}-{slug}"
    assert len(name) <= ROLE_NAME_LENGTH, "a slug is made short enough"
    return name


async def paths(iam: "IAMClient") -> dict[str, str]:
    """The path of each role under PATH, by its name."""
    pages = iam.get_paginator("list_roles").paginate(PathPrefix=PATH)
    return {role["RoleName"]: role["Path"] async for page in pages for role in page["Roles"]}


async def faults(iam: "IAMClient", wanted: Wanted) -> list[str]:
    """What is wrong with a role that is there."""
    role = (await iam.get_role(RoleName=wanted.name))["Role"]
    boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    attached = await _attached(iam, wanted.name)
    inline = await _inline(iam, wanted.name)
    found = {
        "it trusts others": role.get("AssumeRolePolicyDocument") != wanted.trust,
        f"its sessions last {role.get('MaxSessionDuration')} s": role.get("MaxSessionDuration") != SESSION_SECONDS,
        "its description is another": role.get("Description") != DESCRIPTION,
        "its tags are others": _tags(role) != wanted.tags,
        f"its permissions boundary is {boundary}": boundary is not None,
        f"its policies are {', '.join(sorted(attached)) or 'none'}": attached != {wanted.policy_arn},
        f"it has inline policies: {', '.join(inline)}": bool(inline),
    }
    return [fault for fault, is_so in found.items() if is_so]


async def make(iam: "IAMClient", wanted: Wanted, *, is_listed: bool) -> None:
    """Make the role, or make it as it should be. Raises PolicyMissing, NameTaken and what IAM answers."""
    if not is_listed and await _create(iam, wanted):
        await _attach(iam, wanted)
        return
    if not await faults(iam, wanted):
        return
    role = (await iam.get_role(RoleName=wanted.name))["Role"]
    await iam.update_assume_role_policy(RoleName=wanted.name, PolicyDocument=json.dumps(wanted.trust))
    await iam.update_role(RoleName=wanted.name, Description=DESCRIPTION, MaxSessionDuration=SESSION_SECONDS)
    if strange := sorted(_tags(role).keys() - wanted.tags.keys()):
        await iam.untag_role(RoleName=wanted.name, TagKeys=strange)
    await iam.tag_role(RoleName=wanted.name, Tags=_tag_list(wanted))
    if "PermissionsBoundary" in role:
        await iam.delete_role_permissions_boundary(RoleName=wanted.name)
    await strip(iam, wanted.name, but=wanted.policy_arn)
    await _attach(iam, wanted)


async def delete(iam: "IAMClient", names: Sequence[str]) -> dict[str, ClientError]:
    """Delete the roles, first what they may do; that one is gone already is as good. Returns what IAM refuses."""
    refused: dict[str, ClientError] = {}
    for work in (strip, _delete):
        for name in names:
            try:
                await work(iam, name)
            except iam.exceptions.NoSuchEntityException:
                continue
            except ClientError as error:
                refused[name] = error
    return refused


async def _delete(iam: "IAMClient", name: str) -> None:
    """IAM deletes a role only when nothing hangs on it any more."""
    pages = iam.get_paginator("list_instance_profiles_for_role").paginate(RoleName=name)
    for profile in [each["InstanceProfileName"] async for page in pages for each in page["InstanceProfiles"]]:
        await iam.remove_role_from_instance_profile(InstanceProfileName=profile, RoleName=name)
    await iam.delete_role(RoleName=name)


async def _create(iam: "IAMClient", wanted: Wanted) -> bool:
    """Create the role; False when it is there, although IAM has not listed it yet."""
    try:
        await iam.create_role(
            Path=PATH,
            RoleName=wanted.name,
            AssumeRolePolicyDocument=json.dumps(wanted.trust),
            Description=DESCRIPTION,
            MaxSessionDuration=SESSION_SECONDS,
            Tags=_tag_list(wanted),
        )
    except iam.exceptions.EntityAlreadyExistsException:
        if (await iam.get_role(RoleName=wanted.name))["Role"]["Path"] != PATH:
            raise NameTaken from None
        return False
    return True


async def _attach(iam: "IAMClient", wanted: Wanted) -> None:
    """Raises PolicyMissing; NoSuchEntity is left of a role that IAM does not show yet."""
    try:
        await iam.attach_role_policy(RoleName=wanted.name, PolicyArn=wanted.policy_arn)
    except iam.exceptions.NoSuchEntityException:
        # Of which of the two AWS says only in words.
        if await _exists(iam, wanted.policy_arn):
            raise
        raise PolicyMissing from None


async def _exists(iam: "IAMClient", policy_arn: str) -> bool:
    try:
        await iam.get_policy(PolicyArn=policy_arn)
    except iam.exceptions.NoSuchEntityException:
        return False
    return True


async def excess(iam: "IAMClient", wanted: Wanted) -> set[str]:
    """The managed policies that the role has besides its own."""
    return await _attached(iam, wanted.name) - {wanted.policy_arn}


async def strip(iam: "IAMClient", name: str, *, but: str | None = None) -> None:
    """Take from the role what it may do, but the managed policy of this ARN."""
    for arn in sorted(await _attached(iam, name) - {but}):
        await iam.detach_role_policy(RoleName=name, PolicyArn=arn)
    for policy in await _inline(iam, name):
        await iam.delete_role_policy(RoleName=name, PolicyName=policy)


async def _attached(iam: "IAMClient", name: str) -> set[str]:
    pages = iam.get_paginator("list_attached_role_policies").paginate(RoleName=name)
    return {policy["PolicyArn"] async for page in pages for policy in page["AttachedPolicies"]}


async def _inline(iam: "IAMClient", name: str) -> list[str]:
    pages = iam.get_paginator("list_role_policies").paginate(RoleName=name)
    return [policy async for page in pages for policy in page["PolicyNames"]]


def _tags(role: "RoleTypeDef") -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in role.get("Tags", ())}


def _tag_list(wanted: Wanted) -> "list[TagTypeDef]":
    return [{"Key": key, "Value": value} for key, value in wanted.tags.items()]
