"""Services and actions that AWS does not have, found before a document is stored."""

import time
from collections.abc import Collection

import pytest

from server.policies.actions import NEAREST, actions_of, check_actions, resource_of, services
from server.policies.document import Document, parse_document
from server.policies.problems import MOST_PROBLEMS, ProblemCode


def document(*actions: str, element: str = "Action") -> Document:
    statement = {"Effect": "Deny", element: list(actions), "Resource": "*"}
    found = parse_document({"Version": "2012-10-17", "Statement": [statement]})
    assert isinstance(found, Document), found
    return found


def told(action: str, accepted: Collection[str] = ()) -> str:
    (problem,) = check_actions(document(action), accepted)
    return problem.message


def test_what_aws_has_is_taken_whatever_the_case() -> None:
    known = ("*", "s3:GetObject", "S3:getobject", "ec2:*", "ec2:*Tags", "ec2:Describe?n*", "organizations:Leave*")
    assert check_actions(document(*known)) == ()
    assert check_actions(document(*known, element="NotAction")) == ()


def test_the_place_of_each_is_told() -> None:
    found = check_actions(document("s3:GetObject", "s4:GetObject", "s3:Getobjekt", "s3:Gett*", element="NotAction"))
    assert [(problem.code, problem.path) for problem in found] == [
        (ProblemCode.UNKNOWN_SERVICE, "Statement[0].NotAction[1]"),
        (ProblemCode.UNKNOWN_ACTION, "Statement[0].NotAction[2]"),
        (ProblemCode.UNKNOWN_ACTION, "Statement[0].NotAction[3]"),
    ]


@pytest.mark.parametrize(
    ("action", "right"),
    [
        ("s4:GetObject", "s3:GetObject"),
        ("ec2:TerminateInstance", "ec2:TerminateInstances"),
        ("iam:createrol", "iam:CreateRole"),
        ("s3:ListBuckets", "s3:ListAllMyBuckets"),
        ("guarduty:DeleteDetector", "guardduty:DeleteDetector"),
        ("cloudtrial:*", "cloudtrail"),
        ("ec2:Terminatee*", "ec2:TerminateInstances"),
    ],
)
def test_the_nearest_right_name_is_told(action: str, right: str) -> None:
    message = told(action)
    assert right in message.split("nearest: ")[1].split(".")[0].split(", ")
    assert f'"{action}" in allowUnknownActions' in message
    assert message.count(", ") < NEAREST + 1


def test_nothing_is_suggested_when_nothing_is_near() -> None:
    assert "nearest" not in told("zzzzzzzz:Qqqqqqqq")
    assert "nearest" not in told("iam:Qqxxqq")


def test_the_author_may_know_better() -> None:
    assert check_actions(document("s3:Brandnew", "newservice:*"), ["S3:BrandNew", "newservice:*"]) == ()
    assert "s3:Other" in told("s3:Other", ["s3:Brandnew"])


def test_whether_an_action_is_about_single_resources() -> None:
    assert resource_of("iam:UpdateAccountPasswordPolicy") == "*"
    assert resource_of("IAM:attachrolepolicy") is None
    assert resource_of("iam:Nothing") is None
    assert resource_of("nothing:Nothing") is None


def test_freeholds_own_services_are_known() -> None:
    assert {"account", "ec2", "iam", "organizations", "s3", "sts"} <= services()
    assert "getaccountpublicaccessblock" in actions_of("s3")


@pytest.mark.parametrize(
    "actions",
    [
        [f"ec2:TerminateInstanc{i}" for i in range(400)],
        [f"elasticcomput{i}:Go{i}" for i in range(400)],
        [f"ec2:*e*{i}*e*" for i in range(400)],
        ["ec2:" + "*e" * 4_000],
        ["ec2:" + "x" * 9_000, "x" * 9_000 + ":y"],
    ],
    ids=["actions", "services", "patterns", "asterisks", "long"],
)
def test_many_wrong_names_take_bounded_time(actions: list[str]) -> None:
    started = time.process_time()
    assert len(check_actions(document(*actions))) in range(1, MOST_PROBLEMS + 2)
    assert time.process_time() - started < 2
