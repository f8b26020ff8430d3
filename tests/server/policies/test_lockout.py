"""Which of Freehold's calls a policy would deny, before it does."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workers.assurance.stages
from server.policies import lockout as lockout_rules
from server.policies.evaluation import Level
from server.policies.lockout import FULL_ACCESS, Caller, Lockout, denied_calls, member_calls, with_full_access
from server.tenancies.service import ROLE
from tests.server.policies.written import allow, deny, document, level
from workers.assurance.roles import PATH
from workers.assurance.stages import STAGES
from workers.assurance.stages.iam_baseline import SUPPORT_ROLE

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
    role = "arn:aws:iam::*:role/freehold/Protected"
    found = lockout(deny("ec2:*", home), deny(["iam:*", "s3:*"], Resource=role))
    assert found.denied == ()
    told = {each.action: each.reasons for each in found.perhaps}
    assert told["ec2:EnableEbsEncryptionByDefault"] == ("the value of aws:SourceIp",)
    assert told["iam:AttachRolePolicy"] == ("the resource of iam:AttachRolePolicy",)
    assert told["iam:CreateRole"] == ("the resource of iam:CreateRole",)
    # Neither is about a role, or about any single resource.
    assert not {"iam:UpdateAccountPasswordPolicy", "s3:PutAccountPublicAccessBlock"} & told.keys()
    assert {each.policy for each in found.perhaps} == {"new"}


@pytest.mark.parametrize(
    ("resource", "certain"),
    [
        ({"Resource": "arn:aws:iam::*:*"}, True),
        ({"Resource": "arn:aws:iam::111122223333:role/freehold/*"}, True),
        ({"NotResource": "arn:aws:iam::*:role/app-*"}, True),
        ({"Resource": "arn:aws:iam::*:role/freehold/a*"}, None),
        ({"NotResource": "arn:aws:iam::*:role/freehold/a*"}, None),
        ({"Resource": "arn:aws:iam::*:role/app-*"}, False),
        ({"NotResource": "arn:aws:iam::*:role/*"}, False),
        ({"Resource": "arn:aws:iam::444455556666:role/*"}, False),
    ],
)
def test_the_roles_of_freehold_are_the_resource_of_calls_about_them(
    resource: dict[str, str], certain: bool | None
) -> None:
    statement = {"Effect": "Deny", "Action": "iam:DeleteRole", **resource}
    found = lockout(statement)
    assert (denied(found), len(found.perhaps)) == ({"iam:DeleteRole"} if certain else set(), int(certain is None))


def test_the_role_for_aws_support_has_no_path() -> None:
    found = lockout(deny(["iam:CreateRole", "iam:UpdateRole"], Resource=f"arn:aws:iam::*:role/{SUPPORT_ROLE}"))
    assert denied(found) == {"iam:CreateRole"}
    assert [each.action for each in found.perhaps] == []
    both = deny(["iam:CreateRole"], Resource=["arn:aws:iam::*:role/freehold/a", f"arn:aws:iam::*:role/{SUPPORT_ROLE}"])
    assert [each.action for each in lockout(both).perhaps] == []


def test_where_and_on_what_freehold_works_is_as_its_stages_have_it() -> None:
    assert lockout_rules.GROUP_ROLES.startswith(f"role{PATH}")
    assert f"role/{SUPPORT_ROLE}" == lockout_rules.SUPPORT_ROLE
    stages = Path(workers.assurance.stages.__file__).parent
    used = re.findall(r'run\.member\("(\w+)"(, region)?\)', "".join(each.read_text() for each in stages.glob("*.py")))
    regional = {service for service, region in used if region}
    assert regional == {"ec2"}
    at_home = {service.removesuffix("control") for service, _ in used} - regional - {"sts"}
    assert at_home == {*lockout_rules.GLOBAL_SERVICES, *lockout_rules.HOME_SERVICES} - {"organizations"}


def test_s3_is_called_in_the_home_region_alone() -> None:
    caller = replace(CALLER, home_region="eu-west-1")
    for region, calls in (("eu-west-1", set()), ("eu-central-1", {call for call in CALLS if call.startswith("s3:")})):
        statement = deny("s3:*", {"StringNotEquals": {"aws:RequestedRegion": region}})
        assert denied(lockout(statement, caller=caller)) == calls


@pytest.mark.parametrize(
    ("condition", "certain"),
    [
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
        ({"DateGreaterThan": {"aws:CurrentTime": "2120-01-01T00:00:00Z"}}, None),
        ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False),
        ({"DateLessThan": {"aws:CurrentTime": "2120-01-01T00:00:00Z"}}, True),
        ({"DateEquals": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False),
        ({"DateNotEquals": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
        ({"NumericGreaterThan": {"aws:EpochTime": "1577836800"}}, True),
        ({"StringLike": {"aws:CurrentTime": "2120*"}}, None),
        ({"Bool": {"aws:MultiFactorAuthPresent": "false"}}, True),
        ({"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}}, True),
        ({"NumericGreaterThan": {"aws:MultiFactorAuthAge": "3600"}}, False),
    ],
    ids=str,
)
def test_what_is_known_of_a_session(condition: dict[str, Any], certain: bool | None) -> None:
    found = lockout(deny("*", condition))
    assert denied(found) == (set(CALLS) if certain else set())
    assert {each.reasons for each in found.perhaps} == ({("the time",)} if certain is None else set())


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
