"""IAM: the password policy, and the role with which people open cases at AWS Support."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, cis, finding

if TYPE_CHECKING:
    from types_aiobotocore_iam import IAMClient

PASSWORD_LENGTH, PASSWORD_REUSE, SUPPORT_ROLE_EXISTS = cis("2.8"), cis("2.9"), cis("2.15")
LENGTH, REUSE = 14, 24
# Beyond the benchmark: what keeps a 14-character password from being one word.
CHARACTERS = ("RequireSymbols", "RequireNumbers", "RequireUppercaseCharacters", "RequireLowercaseCharacters")
# What an update would reset unless it is told again.
KEPT = ("MaxPasswordAge", "HardExpiry")

SUPPORT_ROLE = "freehold-support"
SUPPORT_POLICY = "AWSSupportAccess"


async def check(run: Run) -> Sequence[Finding]:
    async with run.member("iam") as iam:
        policy = await _password_policy(iam)
        attached = await _support_policies(iam)
    length, reuse = policy.get("MinimumPasswordLength", 0), policy.get("PasswordReusePrevention", 0)
    missing = [rule for rule in CHARACTERS if not policy.get(rule)]
    return [
        finding(length >= LENGTH, f"passwords have at least {length} characters", PASSWORD_LENGTH),
        finding(reuse >= REUSE, f"the last {reuse} passwords cannot be used again", PASSWORD_REUSE),
        finding(not missing, f"the password policy lacks {', '.join(missing) or 'nothing'}"),
        finding(
            _support_policy(run) in attached,
            f"the role {SUPPORT_ROLE} has {attached or 'no policy'}",
            SUPPORT_ROLE_EXISTS,
        ),
    ]


async def apply(run: Run) -> None:
    async with run.member("iam") as iam:
        await _set_password_policy(iam, await _password_policy(iam))
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:{_partition(run)}:iam::{run.aws_account_id}:root"},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        # When it is there already, whom it trusts may have been narrowed since, and stays so.
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            await iam.create_role(
                RoleName=SUPPORT_ROLE,
                AssumeRolePolicyDocument=json.dumps(trust),
                Description="Opens and follows cases at AWS Support.",
            )
        await iam.attach_role_policy(RoleName=SUPPORT_ROLE, PolicyArn=_support_policy(run))


async def _password_policy(iam: "IAMClient") -> Mapping[str, Any]:
    try:
        return (await iam.get_account_password_policy())["PasswordPolicy"]
    except iam.exceptions.NoSuchEntityException:
        return {}


async def _set_password_policy(iam: "IAMClient", present: Mapping[str, Any]) -> None:
    """Raise what is too weak; what the account's owners made stronger stays so."""
    wanted: dict[str, Any] = {name: present[name] for name in KEPT if present.get(name)}
    wanted |= dict.fromkeys(CHARACTERS, True)
    wanted["MinimumPasswordLength"] = max(LENGTH, present.get("MinimumPasswordLength", 0))
    wanted["PasswordReusePrevention"] = max(REUSE, present.get("PasswordReusePrevention", 0))
    wanted["AllowUsersToChangePassword"] = present.get("AllowUsersToChangePassword", True)
    await iam.update_account_password_policy(**wanted)


async def _support_policies(iam: "IAMClient") -> list[str]:
    try:
        answer = await iam.list_attached_role_policies(RoleName=SUPPORT_ROLE)
    except iam.exceptions.NoSuchEntityException:
        return []
    return [policy.get("PolicyArn", "") for policy in answer["AttachedPolicies"]]


def _partition(run: Run) -> str:
    return run.aws.partition(run.tenancy.home_region)


def _support_policy(run: Run) -> str:
    return f"arn:{_partition(run)}:iam::aws:policy/{SUPPORT_POLICY}"


STAGE = Stage(
    name="iam_baseline",
    title="IAM baseline",
    description="Sets a strong password policy and makes the role for AWS Support.",
    controls=(PASSWORD_LENGTH, PASSWORD_REUSE, SUPPORT_ROLE_EXISTS),
    permissions=(
        "iam:AttachRolePolicy",
        "iam:CreateRole",
        "iam:GetAccountPasswordPolicy",
        "iam:ListAttachedRolePolicies",
        "iam:UpdateAccountPasswordPolicy",
        "sts:AssumeRole",
    ),
    check=check,
    apply=apply,
)
