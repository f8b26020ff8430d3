"""The IAM roles of groups in the account: exactly those that account types grant, as Freehold makes them.

They lie under the path /freehold/. Each trusts the management account alone, and only for sessions that name the group
as their external id: so Freehold can hand out sessions of a group's role to who has shown to be a member of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import and_, delete, func, select, tuple_, update

from server.access.models import AccessRole, AccessState, AccountAccess, Group
from server.accounts.models import Account, AccountRole
from server.leases import StageError, StageErrorClass
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, StageStopped, finding, wait

if TYPE_CHECKING:
    from types_aiobotocore_iam import IAMClient
    from types_aiobotocore_iam.type_defs import TagTypeDef

PATH = "/freehold/"
ROLE_NAME_LENGTH = 64
DESCRIPTION = "Made by Freehold for a group of users; what is changed here is changed back."
SESSION_SECONDS = 3600
# IAM User Guide, "Troubleshoot IAM": changes are not seen everywhere at once.
NOT_SEEN = "IAM does not show a role that it has listed or made; Freehold tries again by itself."
ACCOUNT = "{account}"


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


async def check(run: Run) -> Sequence[Finding]:
    wanted = await _wanted(run)
    unsettled = await _unsettled(run)
    findings = [finding(unsettled == 0, f"{unsettled} changes of access are not noted as done")]
    async with run.member("iam") as iam:
        present = await _names(iam)
        findings += [
            finding(False, f"nobody is granted the role {name}")
            for name in sorted(present - {each.name for each in wanted})
        ]
        for each in wanted:
            faults = await _faults(iam, each) if each.name in present else ["there is none"]
            findings.append(finding(not faults, f"the role {each.name}: {'; '.join(faults) or 'as it should be'}"))
    return findings


async def apply(run: Run) -> None:
    wanted = await _wanted(run)
    refused: dict[str, str] = {}
    async with run.member("iam") as iam:
        present = await _names(iam)
        # First of all those who should not be there are kept out.
        try:
            for name in sorted(present - {each.name for each in wanted}):
                await _delete(iam, name)
            for each in wanted:
                await _make(iam, each, is_new=each.name not in present)
                if not await _attach(iam, each):
                    refused[each.name] = (
                        f"The account has no managed policy {each.policy_arn}. Create it there, or grant the group "
                        "another policy, and retry the setup."
                    )
        except iam.exceptions.NoSuchEntityException as error:
            raise wait("NoSuchEntity", NOT_SEEN) from error
    await _note(run, wanted, refused)
    if refused:
        raise StageStopped(StageError("NoSuchEntity", " ".join(refused.values()), StageErrorClass.NEEDS_PERSON))


async def _wanted(run: Run) -> list[Wanted]:
    rows = (
        select(AccountAccess, Group.slug)
        .join(Group, and_(Group.tenancy_id == AccountAccess.tenancy_id, Group.id == AccountAccess.group_id))
        .where(*_of(run), AccountAccess.state != AccessState.REMOVING)
        .order_by(Group.slug, AccountAccess.role)
    )
    of_management = select(Account.aws_account_id).where(
        Account.tenancy_id == run.tenancy.id, Account.role == AccountRole.MANAGEMENT
    )
    async with run.read() as session:
        management = (await session.execute(of_management)).scalar_one()
        found = (await session.execute(rows)).all()
    principal = f"arn:{run.aws.partition(run.tenancy.home_region)}:iam::{management}:root"
    return [_as_wanted(run, access, slug, principal) for access, slug in found]


def _as_wanted(run: Run, access: AccountAccess, slug: str, principal: str) -> Wanted:
    group = f"grp_{access.group_id.hex}"
    name = f"freehold-{access.role.lower()}-{slug}"
    assert len(name) <= ROLE_NAME_LENGTH, "a slug is made short enough"
    return Wanted(
        access.group_id,
        access.role,
        name,
        access.managed_policy_arn,
        access.managed_policy_arn.replace(ACCOUNT, run.aws_account_id),
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": principal},
                    "Action": "sts:AssumeRole",
                    "Condition": {"StringEquals": {"sts:ExternalId": group}},
                }
            ],
        },
        {"freehold:group": group, "freehold:role": access.role.value},
    )


async def _unsettled(run: Run) -> int:
    changes = select(func.count()).where(*_of(run), AccountAccess.state != AccessState.ACTIVE)
    async with run.read() as session:
        return (await session.execute(changes)).scalar_one()


async def _note(run: Run, wanted: Sequence[Wanted], refused: Mapping[str, str]) -> None:
    """Write down what is done; a row that was changed meanwhile stays as it is, and its account is due again."""
    mine = and_(*_of(run))
    made = [(each.group_id, each.role) for each in wanted]
    async with run.write() as session:
        await session.execute(
            delete(AccountAccess)
            .where(
                mine,
                AccountAccess.state == AccessState.REMOVING,
                tuple_(AccountAccess.group_id, AccountAccess.role).not_in(made),
            )
            .execution_options(synchronize_session=False)
        )
        for each in wanted:
            error = refused.get(each.name)
            await session.execute(
                update(AccountAccess)
                .where(
                    mine,
                    AccountAccess.group_id == each.group_id,
                    AccountAccess.role == each.role,
                    AccountAccess.managed_policy_arn == each.managed_policy_arn,
                    AccountAccess.state != AccessState.REMOVING,
                )
                .values(state=AccessState.ACTIVE if error is None else AccessState.FAILED, error=error)
                .execution_options(synchronize_session=False)
            )


def _of(run: Run) -> tuple[Any, ...]:
    return AccountAccess.tenancy_id == run.tenancy.id, AccountAccess.account_id == run.account.id


async def _names(iam: "IAMClient") -> set[str]:
    """The roles under the path."""
    pages = iam.get_paginator("list_roles").paginate(PathPrefix=PATH)
    return {role["RoleName"] async for page in pages for role in page["Roles"]}


async def _faults(iam: "IAMClient", wanted: Wanted) -> list[str]:
    """What is wrong with a role that is there."""
    try:
        role = (await iam.get_role(RoleName=wanted.name))["Role"]
    except iam.exceptions.NoSuchEntityException:
        return ["there is none"]
    tags = {tag["Key"]: tag["Value"] for tag in role.get("Tags", ())}
    faults = []
    if role.get("AssumeRolePolicyDocument") != wanted.trust:
        faults.append("it trusts others")
    if role.get("MaxSessionDuration") != SESSION_SECONDS:
        faults.append(f"its sessions last {role.get('MaxSessionDuration')} s")
    if not wanted.tags.items() <= tags.items():
        faults.append("its tags are others")
    attached = await _attached(iam, wanted.name)
    if attached != {wanted.policy_arn}:
        faults.append(f"its policies are {', '.join(sorted(attached)) or 'none'}")
    if inline := await _inline(iam, wanted.name):
        faults.append(f"it has inline policies: {', '.join(inline)}")
    return faults


async def _make(iam: "IAMClient", wanted: Wanted, *, is_new: bool) -> None:
    """The role with its trust and nothing else that is not wanted; the policy follows."""
    trust = json.dumps(wanted.trust)
    tags: list[TagTypeDef] = [{"Key": key, "Value": value} for key, value in wanted.tags.items()]
    if is_new:
        await iam.create_role(
            Path=PATH,
            RoleName=wanted.name,
            AssumeRolePolicyDocument=trust,
            Description=DESCRIPTION,
            MaxSessionDuration=SESSION_SECONDS,
            Tags=tags,
        )
        return
    if not await _faults(iam, wanted):
        return
    await iam.update_assume_role_policy(RoleName=wanted.name, PolicyDocument=trust)
    await iam.update_role(RoleName=wanted.name, Description=DESCRIPTION, MaxSessionDuration=SESSION_SECONDS)
    await iam.tag_role(RoleName=wanted.name, Tags=tags)
    await _strip(iam, wanted.name, but=wanted.policy_arn)


async def _attach(iam: "IAMClient", wanted: Wanted) -> bool:
    """Attach the policy; False when the account has none of that name."""
    if wanted.policy_arn in await _attached(iam, wanted.name):
        return True
    try:
        await iam.attach_role_policy(RoleName=wanted.name, PolicyArn=wanted.policy_arn)
    except iam.exceptions.NoSuchEntityException:
        # Of which of the two AWS says only in words.
        if await _exists(iam, wanted.policy_arn):
            raise
        return False
    return True


async def _exists(iam: "IAMClient", policy_arn: str) -> bool:
    try:
        await iam.get_policy(PolicyArn=policy_arn)
    except iam.exceptions.NoSuchEntityException:
        return False
    return True


async def _delete(iam: "IAMClient", name: str) -> None:
    """IAM deletes a role only when nothing hangs on it any more."""
    await _strip(iam, name)
    for profile in (await iam.list_instance_profiles_for_role(RoleName=name))["InstanceProfiles"]:
        await iam.remove_role_from_instance_profile(InstanceProfileName=profile["InstanceProfileName"], RoleName=name)
    await iam.delete_role(RoleName=name)


async def _strip(iam: "IAMClient", name: str, *, but: str | None = None) -> None:
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


STAGE = Stage(
    name="access",
    title="Access of groups",
    description="Makes the IAM roles of the groups with access to the account, and removes those of all others.",
    permissions=(
        "iam:AttachRolePolicy",
        "iam:CreateRole",
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
        "iam:GetPolicy",
        "iam:GetRole",
        "iam:ListAttachedRolePolicies",
        "iam:ListInstanceProfilesForRole",
        "iam:ListRolePolicies",
        "iam:ListRoles",
        "iam:RemoveRoleFromInstanceProfile",
        "iam:TagRole",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRole",
        "sts:AssumeRole",
    ),
    check=check,
    apply=apply,
    governs=True,
)
