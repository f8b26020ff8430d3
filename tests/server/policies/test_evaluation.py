"""How levels, statements and what is not known come together: the examples that AWS publishes for SCPs.

"SCP evaluation" and "Service control policy examples", AWS Organizations User Guide:
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_evaluation.html
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_examples.html
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.policies.conditions import context
from server.policies.evaluation import Decision, Level, Outcome, evaluate
from tests.server.policies.written import FULL_ACCESS, allow, deny, level, open_but_for

ALLOWED, DENIED, UNKNOWN = Outcome.ALLOWED, Outcome.DENIED, Outcome.UNKNOWN
Known = Mapping[str, str | Iterable[str] | None]


def decide(levels: list[Level], action: str, known: Known | None = None, resource: str | None = "*") -> Decision:
    return evaluate(levels, action, resource, context(known or {}))


def outcome(levels: list[Level], action: str, known: Known | None = None, resource: str | None = "*") -> Outcome:
    return decide(levels, action, known, resource).outcome


def test_something_allows_at_every_level_or_it_is_denied() -> None:
    """Figures 1 and 2: with the Allow of the unit gone, nothing is left to the account."""
    everywhere = [level(name, FULL_ACCESS) for name in ("Root", "Production", "Account B")]
    assert outcome(everywhere, "ec2:RunInstances") is ALLOWED
    without = [everywhere[0], Level("Production", ()), everywhere[2]]
    assert decide(without, "ec2:RunInstances") == Decision(DENIED, not_allowed_at=("Production",))


@pytest.mark.parametrize("denying", range(3))
def test_a_deny_at_any_level_wins(denying: int) -> None:
    """Figure 3: a Deny of the unit stands against the Allow of root and account."""
    names = ("Root", "Production", "Account B")
    levels = [level(name, FULL_ACCESS, *[deny("s3:*")][denying != i :]) for i, name in enumerate(names)]
    decision = decide(levels, "s3:GetObject")
    assert (decision.outcome, [str(place) for place in decision.denied_by]) == (
        DENIED,
        [f"statement 1 of {names[denying]}-2, attached to {names[denying]}"],
    )
    assert outcome(levels, "ec2:RunInstances") is ALLOWED


def test_an_allow_list_is_what_all_levels_share() -> None:
    """The intersection of A, B, C at the root with C, D, E at the unit is C."""
    levels = [level("root", allow(["s3:*", "ec2:*", "sqs:*"])), level("unit", allow(["sqs:*", "sns:*", "iam:*"]))]
    actions = ("s3:GetObject", "ec2:RunInstances", "sqs:SendMessage", "sns:Publish", "iam:CreateUser")
    assert [action for action in actions if outcome(levels, action) is ALLOWED] == ["sqs:SendMessage"]
    assert decide(levels, "rds:CreateDBInstance").not_allowed_at == ("root", "unit")


def test_an_allow_list_beside_full_access_changes_nothing() -> None:
    assert outcome(open_but_for(allow("s3:*")), "ec2:RunInstances") is ALLOWED


def test_the_management_account_is_under_no_level() -> None:
    assert outcome([], "organizations:LeaveOrganization") is ALLOWED


def test_access_outside_of_the_chosen_regions() -> None:
    """General examples, "Deny access to AWS based on the requested AWS Region"."""
    statement = {
        "Sid": "OnlyTheseRegions",
        "Effect": "Deny",
        "NotAction": ["iam:*", "organizations:*", "route53:*", "support:*"],
        "Condition": {
            "StringNotEquals": {"aws:RequestedRegion": ["eu-central-1", "eu-west-1"]},
            "ArnNotLike": {"aws:PrincipalArn": ["arn:aws:iam::*:role/Exempt*", "arn:aws:iam::*:role/Other"]},
        },
    }
    levels = open_but_for(statement)
    developer, exempt = ("arn:aws:iam::111122223333:role/" + name for name in ("Developer", "ExemptAdmin"))
    elsewhere = {"aws:RequestedRegion": "us-east-1", "aws:PrincipalArn": developer}
    assert decide(levels, "ec2:RunInstances", elsewhere).denied_by[0].statement.name == "OnlyTheseRegions"
    assert outcome(levels, "iam:CreateUser", elsewhere) is ALLOWED
    assert outcome(levels, "ec2:RunInstances", {**elsewhere, "aws:RequestedRegion": "eu-west-1"}) is ALLOWED
    assert outcome(levels, "ec2:RunInstances", {**elsewhere, "aws:PrincipalArn": exempt}) is ALLOWED
    # Known to be denied or allowed although one of the two keys is not known.
    assert outcome(levels, "ec2:RunInstances", {"aws:PrincipalArn": exempt}) is ALLOWED
    unknown = decide(levels, "ec2:RunInstances", {"aws:PrincipalArn": developer})
    assert (unknown.outcome, unknown.doubts[0].reasons) == (UNKNOWN, ("the value of aws:RequestedRegion",))


def test_a_role_that_only_some_may_change() -> None:
    """General examples, "Prevent IAM users and roles from making specified changes, with an exception"."""
    role = "arn:aws:iam::*:role/name-of-role-to-deny"
    statement = deny(
        ["iam:AttachRolePolicy", "iam:DeleteRole"],
        {"StringNotLike": {"aws:PrincipalARN": "arn:aws:iam::*:role/name-of-admin-role-to-allow"}},
        Resource=[role],
    )
    levels = open_but_for(statement)
    somebody = {"aws:PrincipalArn": "arn:aws:iam::111122223333:user/somebody"}
    protected = role.replace("*", "111122223333")
    assert outcome(levels, "iam:DeleteRole", somebody, protected) is DENIED
    assert outcome(levels, "iam:DeleteRole", somebody, protected.lower().replace("deny", "Deny")) is ALLOWED
    assert outcome(levels, "iam:DeleteRole", somebody, "arn:aws:iam::111122223333:role/another") is ALLOWED
    admin = {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/name-of-admin-role-to-allow"}
    assert outcome(levels, "iam:DeleteRole", admin, protected) is ALLOWED
    doubt = decide(levels, "iam:DeleteRole", somebody, None).doubts[0]
    assert doubt.reasons == ("the resource of iam:DeleteRole",)
    assert outcome(levels, "iam:DeleteRole", admin, None) is ALLOWED


@pytest.mark.parametrize(
    ("present", "expected"), [("true", ALLOWED), ("false", DENIED), (None, DENIED), ("unknown", UNKNOWN)]
)
def test_to_stop_an_instance_takes_mfa(present: str | None, expected: Outcome) -> None:
    """General examples, "Require MFA to perform an API operation"."""
    statement = deny(
        ["ec2:StopInstances", "ec2:TerminateInstances"], {"BoolIfExists": {"aws:MultiFactorAuthPresent": False}}
    )
    known = {} if present == "unknown" else {"aws:MultiFactorAuthPresent": present}
    assert outcome(open_but_for(statement), "ec2:StopInstances", known) is expected
    assert outcome(open_but_for(statement), "ec2:StartInstances", known) is ALLOWED


def test_the_root_user_is_kept_out() -> None:
    """General examples, "Block service access for the root user"."""
    levels = open_but_for(deny("ec2:*", {"StringLike": {"aws:PrincipalArn": ["arn:aws:iam::*:root"]}}))
    assert outcome(levels, "ec2:RunInstances", {"aws:PrincipalArn": "arn:aws:iam::111122223333:root"}) is DENIED
    assert outcome(levels, "ec2:RunInstances", {"aws:PrincipalArn": "arn:aws:iam::111122223333:user/root"}) is ALLOWED
    assert outcome(levels, "s3:GetObject", {"aws:PrincipalArn": "arn:aws:iam::111122223333:root"}) is ALLOWED


@pytest.mark.parametrize(
    ("statement", "denied", "allowed"),
    [
        # General examples, "Prevent member accounts from leaving the organization".
        (deny("organizations:LeaveOrganization"), "organizations:LeaveOrganization", "organizations:ListRoots"),
        # Examples for AWS Config, for Amazon GuardDuty and for CloudTrail in AWS Control Tower.
        (deny(["config:Delete*", "config:Stop*"]), "config:StopConfigurationRecorder", "config:PutConfigRule"),
        (deny("guardduty:DeleteDetector"), "GuardDuty:deletedetector", "guardduty:ListDetectors"),
        (deny(["cloudtrail:StopLogging", "cloudtrail:Delete?rail"]), "cloudtrail:DeleteTrail", "cloudtrail:ListTrails"),
        (deny("ec2:*Vpc*"), "ec2:CreateVpcEndpoint", "ec2:RunInstances"),
        ({"Effect": "Deny", "NotAction": "iam:*"}, "ec2:RunInstances", "iam:CreateUser"),
    ],
)
def test_what_members_may_not_switch_off(statement: dict[str, Any], denied: str, allowed: str) -> None:
    assert outcome(open_but_for(statement), denied) is DENIED
    assert outcome(open_but_for(statement), allowed) is ALLOWED


def test_an_instance_is_of_the_type() -> None:
    """Examples for Amazon EC2, "Require Amazon EC2 instances to use a specific type"."""
    instances = "arn:aws:ec2:*:*:instance/*"
    levels = open_but_for(
        deny("ec2:RunInstances", {"StringNotEquals": {"ec2:InstanceType": "t2.micro"}}, Resource=instances)
    )
    instance = "arn:aws:ec2:eu-west-1:111122223333:instance/i-1"
    assert outcome(levels, "ec2:RunInstances", {"ec2:InstanceType": "t2.micro"}, instance) is ALLOWED
    assert outcome(levels, "ec2:RunInstances", {"ec2:InstanceType": "m5.large"}, instance) is DENIED
    assert outcome(levels, "ec2:RunInstances", {"ec2:InstanceType": None}, instance) is DENIED
    assert outcome(levels, "ec2:RunInstances", {}, "arn:aws:ec2:eu-west-1:111122223333:volume/v-1") is ALLOWED


def test_a_secret_has_the_tag() -> None:
    """Examples for tagging resources, "Require a tag on specified created resources"."""
    levels = open_but_for(deny("secretsmanager:CreateSecret", {"Null": {"aws:RequestTag/Project": "true"}}))
    assert outcome(levels, "secretsmanager:CreateSecret", {"aws:RequestTag/Project": "x"}) is ALLOWED
    assert outcome(levels, "secretsmanager:CreateSecret", {"aws:RequestTag/Project": None}) is DENIED
    assert outcome(levels, "secretsmanager:CreateSecret") is UNKNOWN


def test_allow_statements_may_be_narrow_too() -> None:
    """AWS Security Blog, "AWS Organizations service control policy now supports full IAM language"."""
    levels = [
        level(
            "root",
            allow("s3:*", {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}, Resource="arn:aws:s3:::ours-*"),
            {"Effect": "Allow", "NotAction": ["s3:*", "iam:*"]},
            {"Effect": "Allow", "Action": "iam:*", "NotResource": "arn:aws:iam::*:user/*"},
        )
    ]
    here = {"aws:RequestedRegion": "eu-west-1"}
    assert outcome(levels, "s3:GetObject", here, "arn:aws:s3:::ours-1/key") is ALLOWED
    assert outcome(levels, "s3:GetObject", here, "arn:aws:s3:::theirs/key") is DENIED
    assert outcome(levels, "s3:GetObject", {"aws:RequestedRegion": "eu-west-2"}, "arn:aws:s3:::ours-1/key") is DENIED
    assert decide(levels, "s3:GetObject", here, None).doubts[0].place.policy == "root-1"
    assert outcome(levels, "ec2:RunInstances") is ALLOWED
    assert outcome(levels, "iam:CreateRole", {}, "arn:aws:iam::111122223333:role/a") is ALLOWED
    assert outcome(levels, "iam:CreateUser", {}, "arn:aws:iam::111122223333:user/a") is DENIED


def test_a_wildcard_in_a_resource_stays_in_its_part() -> None:
    levels = open_but_for(deny("iam:*", Resource="arn:aws:iam::1*3:role/a"))
    assert outcome(levels, "iam:GetRole", {}, "arn:aws:iam::111122223333:role/a") is DENIED
    assert outcome(levels, "iam:GetRole", {}, "arn:aws:iam::1:user/x:3:role/a") is ALLOWED


def test_what_is_certain_counts_before_what_is_not() -> None:
    perhaps = deny("s3:*", {"Bool": {"aws:SecureTransport": "false"}})
    assert outcome(open_but_for(perhaps), "s3:GetObject") is UNKNOWN
    assert outcome(open_but_for(perhaps, deny("s3:GetObject")), "s3:GetObject") is DENIED
    assert outcome([level("root", FULL_ACCESS), level("unit", perhaps)], "s3:GetObject") is DENIED
    perhaps_allowed = allow("s3:*", {"Bool": {"aws:SecureTransport": "true"}})
    assert outcome([level("root", perhaps_allowed, FULL_ACCESS)], "s3:GetObject") is ALLOWED
    decision = decide([level("root", perhaps_allowed), level("unit", FULL_ACCESS, perhaps)], "s3:GetObject")
    assert [str(doubt.place) for doubt in decision.doubts] == [
        "statement 1 of root-1, attached to root",
        "statement 1 of unit-2, attached to unit",
    ]


statements = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Resource": st.sampled_from(["*", "arn:aws:s3:::a", "arn:aws:s3:::b*"]),
        "Condition": st.dictionaries(
            st.sampled_from(["StringEquals", "StringNotLikeIfExists", "ForAllValues:StringLike", "Null"]),
            st.dictionaries(st.sampled_from(["a:x", "a:y"]), st.just("true"), max_size=2),
            max_size=2,
        ),
    }
).flatmap(
    lambda statement: st.sampled_from(
        [
            {**statement, name: value}
            for name in ("Action", "NotAction")
            for value in ("*", "s3:Get*", ["s3:*", "iam:*"])
        ]
    )
)
levels_of = st.lists(st.lists(statements, max_size=2), min_size=1, max_size=3)
contexts = st.dictionaries(st.sampled_from(["a:x", "a:y"]), st.sampled_from(["true", "no", None, ("true", "no")]))
resources = st.sampled_from(["arn:aws:s3:::a", "arn:aws:s3:::bc", "*", None])


def named(levels: list[list[dict[str, Any]]]) -> list[Level]:
    return [level(f"level {i}", *each) for i, each in enumerate(levels)]


@settings(max_examples=30)
@given(levels_of, contexts, resources, statements)
def test_one_more_deny_never_opens_anything(
    levels: list[list[dict[str, Any]]], known: Known, resource: str | None, more: dict[str, Any]
) -> None:
    before = outcome(named(levels), "s3:GetObject", known, resource)
    after = outcome(named([*levels[:-1], [*levels[-1], {**more, "Effect": "Deny"}]]), "s3:GetObject", known, resource)
    order = [DENIED, UNKNOWN, ALLOWED]
    assert order.index(after) <= order.index(before)


@settings(max_examples=30)
@given(levels_of, contexts, resources, contexts)
def test_to_learn_more_never_changes_what_was_certain(
    levels: list[list[dict[str, Any]]], known: Known, resource: str | None, more: Known
) -> None:
    before = outcome(named(levels), "s3:GetObject", known, resource)
    after = outcome(named(levels), "s3:GetObject", {**more, **known}, resource)
    assert before in (after, UNKNOWN)
