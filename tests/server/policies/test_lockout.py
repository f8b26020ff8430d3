"""Which of Freehold's calls a policy would deny, before it does."""

from typing import Any

import pytest

from server.policies.evaluation import Level
from server.policies.lockout import FULL_ACCESS, Caller, Lockout, denied_calls, member_calls, with_full_access
from server.tenancies.service import ROLE
from tests.server.policies.written import allow, deny, document, level
from workers.assurance.stages import STAGES

CALLER = Caller("111122223333", ROLE, ("eu-west-1", "eu-central-1"), organization_id="o-exampleorgid")
CALLS = member_calls(permission for stage in STAGES for permission in stage.permissions)


def lockout(*statements: dict[str, Any], calls: tuple[str, ...] = CALLS, caller: Caller = CALLER) -> Lockout:
    levels = [Level("root", (FULL_ACCESS,)), with_full_access("account", {"new": document(*statements)})]
    return denied_calls(levels, calls, caller)


def denied(found: Lockout) -> set[str]:
    return {each.action for each in found.denied}


def test_the_calls_at_stake_are_those_inside_members() -> None:
    assert {"ec2:EnableEbsEncryptionByDefault", "iam:CreateRole", "account:PutAlternateContact"} <= set(CALLS)
    assert not [call for call in CALLS if call.startswith(("organizations:", "sts:"))]


def test_a_denied_call_is_told_with_its_statement() -> None:
    found = lockout(deny("s3:GetObject"), deny(["s3:*", "ec2:Run*"], Sid="NoStorage"))
    assert found.perhaps == ()
    first = found.denied[0]
    assert (first.action, first.level, first.policy, first.statement, first.index) == (
        "s3:GetAccountPublicAccessBlock",
        "account",
        "new",
        "NoStorage",
        1,
    )
    assert first.regions == CALLER.regions
    assert denied(found) == {call for call in CALLS if call.startswith("s3:")}
    assert denied(lockout(deny("*"))) == set(CALLS)
    assert lockout(deny("rds:*")) == Lockout((), ())


@pytest.mark.parametrize(
    "exempt",
    [
        {"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::*:role/{ROLE}"}},
        {"StringNotLike": {"aws:PrincipalArn": ["arn:aws:iam::*:role/Another", f"arn:*:iam::*:role/{ROLE}"]}},
        {"ArnNotEquals": {"aws:PrincipalARN": "arn:aws:iam::${aws:PrincipalAccount}:role/Organization*"}},
        {"StringNotEquals": {"aws:PrincipalAccount": "111122223333"}},
        {"StringNotEquals": {"aws:PrincipalOrgID": "o-exampleorgid"}},
        {"StringEquals": {"aws:PrincipalType": "User"}},
        {"Bool": {"aws:ViaAWSService": "true"}},
        {"Bool": {"aws:SecureTransport": "false"}},
        {"Null": {"aws:username": "false"}},
        {"ForAnyValue:StringEquals": {"aws:CalledVia": "cloudformation.amazonaws.com"}},
    ],
)
def test_a_policy_that_is_not_about_freeholds_role_denies_nothing(exempt: dict[str, Any]) -> None:
    assert lockout(deny("*", exempt)) == Lockout((), ())


def test_another_role_is_not_exempted() -> None:
    exempt = {"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/Another"}}
    assert denied(lockout(deny("*", exempt))) == set(CALLS)


def test_each_region_is_tried() -> None:
    only = {"StringNotEquals": {"aws:RequestedRegion": "eu-west-1"}}
    found = lockout(deny(["ec2:*", "s3:*"], only))
    assert denied(found) == {call for call in CALLS if call.startswith(("ec2:", "s3:"))}
    assert {each.regions for each in found.denied} == {("eu-central-1",)}
    by_ec2 = lockout(deny("*", {"StringEquals": {"ec2:Region": "eu-central-1"}}), calls=("ec2:RunInstances",))
    assert [each.regions for each in by_ec2.denied] == [("eu-central-1",)]


def test_services_with_one_endpoint_are_in_its_region() -> None:
    """Without NotAction for them, a policy on Regions denies what has its only endpoint elsewhere."""
    only = {"StringNotEquals": {"aws:RequestedRegion": ["eu-west-1", "eu-central-1"]}}
    found = lockout(deny("*", only))
    assert denied(found) == {call for call in CALLS if call.startswith(("iam:", "account:"))}
    assert {each.regions for each in found.denied} == {("us-east-1",)}
    spared = {"Effect": "Deny", "NotAction": ["iam:*", "account:*"], "Condition": only}
    assert lockout(spared) == Lockout((), ())


def test_what_may_be_denied_is_told_with_what_it_depends_on() -> None:
    home = {"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}
    role = "arn:aws:iam::*:role/Protected"
    found = lockout(deny("ec2:*", home), deny(["iam:*", "s3:*"], Resource=role))
    assert found.denied == ()
    told = {each.action: each.reasons for each in found.perhaps}
    assert told["ec2:EnableEbsEncryptionByDefault"] == ("the value of aws:SourceIp",)
    assert told["iam:AttachRolePolicy"] == ("the resource of iam:AttachRolePolicy",)
    # Neither is about a role, or about any single resource.
    assert not {"iam:UpdateAccountPasswordPolicy", "s3:PutAccountPublicAccessBlock"} & told.keys()
    assert {each.policy for each in found.perhaps} == {"new"}


def test_the_account_is_the_resource_of_calls_about_it() -> None:
    mine, others = (deny("account:*", Resource=f"arn:aws:account::{number}:account") for number in ("11*", "22*"))
    assert denied(lockout(mine)) == {call for call in CALLS if call.startswith("account:")}
    assert lockout(others) == Lockout((), ())


def test_an_allow_list_denies_by_its_place() -> None:
    """Beside FullAWSAccess it denies nothing; in its stead it denies what it does not list."""
    statement = allow(["ec2:*", "iam:*"])
    assert lockout(statement) == Lockout((), ())
    instead = [Level("root", (FULL_ACCESS,)), level("account", statement)]
    found = denied_calls(instead, CALLS, CALLER)
    assert denied(found) == {call for call in CALLS if call.startswith(("s3:", "account:"))}
    assert {(each.level, each.policy, each.statement) for each in found.denied} == {("account", None, None)}


def test_another_partition() -> None:
    caller = Caller("111122223333", ROLE, ("cn-north-1",), partition="aws-cn")
    exempt = {"ArnNotLike": {"aws:PrincipalArn": f"arn:aws-cn:iam::*:role/{ROLE}"}}
    assert lockout(deny("*", exempt), caller=caller) == Lockout((), ())
    assert denied(lockout(deny("*", {"StringEquals": {"aws:RequestedRegion": "cn-north-1"}}), caller=caller)) == {
        call for call in CALLS if call.startswith(("ec2:", "s3:"))
    }
