"""Service control policies in the simulator: refused as AWS refuses, listed in pages, kept over a restart."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from server.embedded import embedded
from tests.server.embedded.aws import Aws
from tests.server.embedded.test_organizations import code

SCP = "SERVICE_CONTROL_POLICY"
STATEMENT = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}
WRONG_ACTIONS: tuple[object, ...] = ("nonsense", "s*:GetObject", "s3:", "s3:Get Object", 5, [], ["s3:*", None])
WRONG_RESOURCES: tuple[object, ...] = ("bucket", "arn:aws:s3", "arn:aws:*:::bucket", "", 5, [], ["*", {}])
WRONG_CONDITIONS: tuple[object, ...] = (
    *("StringEquals", [], {"StringEquals": "aws:x"}, {"StringEquals": ["aws:x"]}),
    *({"StringMatches": {"aws:x": "1"}}, {"NullIfExists": {"aws:x": "true"}}, {"ForEach:StringLike": {"aws:x": "1"}}),
    *({"StringEquals": {"x": "1"}}, {"StringEquals": {"aws:x": []}}, {"StringEquals": {"aws:x": {}}}),
    *({"StringEquals": {"aws:x": None}}, {"StringEquals": {"aws:x": "1", "AWS:X": "2"}}),
    *(
        {"IpAddress": {"aws:SourceIp": value}}
        for value in ("nope", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::1%eth0")
    ),
    *({"NumericEquals": {"aws:x": "one"}}, {"Bool": {"aws:SecureTransport": "yes"}}, {"Null": {"aws:x": "no"}}),
    {"DateLessThan": {"aws:CurrentTime": "tomorrow"}},
)
DOCUMENT = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})


def reason(refused: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    response: Any = refused.value.response
    return code(refused), response["Reason"]


@pytest.fixture(scope="module")
async def governed(aws: Aws) -> Aws:
    """The organization with service control policies enabled."""
    async with aws.client("organizations") as organizations:
        root = (await organizations.list_roots())["Roots"][0]["Id"]
        await organizations.enable_policy_type(RootId=root, PolicyType=SCP)
    return aws


@pytest.fixture
async def organizations(governed: Aws) -> AsyncIterator[Any]:
    async with governed.client("organizations", attempts=1) as organizations:
        yield organizations


async def make_policy(organizations: Any, name: str, content: str = DOCUMENT, **more: object) -> str:
    made = await organizations.create_policy(Name=name, Description="", Type=SCP, Content=content, **more)
    return str(made["Policy"]["PolicySummary"]["Id"])


async def make_unit(organizations: Any, name: str) -> str:
    root = (await organizations.list_roots())["Roots"][0]["Id"]
    made = await organizations.create_organizational_unit(ParentId=root, Name=name)
    return str(made["OrganizationalUnit"]["Id"])


async def test_a_target_takes_ten_and_none_twice(organizations: Any) -> None:
    unit = await make_unit(organizations, "Ten")
    policies = [await make_policy(organizations, f"Ten {number}") for number in range(10)]
    for policy in policies[:9]:
        await organizations.attach_policy(PolicyId=policy, TargetId=unit)
    with pytest.raises(ClientError) as full:
        await organizations.attach_policy(PolicyId=policies[9], TargetId=unit)
    with pytest.raises(ClientError) as twice:
        await organizations.attach_policy(PolicyId=policies[0], TargetId=unit)
    # FullAWSAccess counts.
    assert reason(full) == ("ConstraintViolationException", "MAX_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED")
    assert code(twice) == "DuplicatePolicyAttachmentException"
    listed = await organizations.list_policies_for_target(TargetId=unit, Filter=SCP, MaxResults=4)
    assert [policy["Name"] for policy in listed["Policies"]] == ["FullAWSAccess", "Ten 0", "Ten 1", "Ten 2"]
    rest = await organizations.list_policies_for_target(
        TargetId=unit, Filter=SCP, MaxResults=20, NextToken=listed["NextToken"]
    )
    assert [len(listed["Policies"]), len(rest["Policies"])] == [4, 6]
    assert "NextToken" not in rest


async def test_the_last_policy_stays_and_what_is_not_attached_is_not_detached(organizations: Any) -> None:
    unit = await make_unit(organizations, "Last")
    policy = await make_policy(organizations, "Last")
    with pytest.raises(ClientError) as unattached:
        await organizations.detach_policy(PolicyId=policy, TargetId=unit)
    with pytest.raises(ClientError) as last:
        await organizations.detach_policy(PolicyId="p-FullAWSAccess", TargetId=unit)
    assert code(unattached) == "PolicyNotAttachedException"
    assert reason(last) == ("ConstraintViolationException", "MIN_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED")
    await organizations.attach_policy(PolicyId=policy, TargetId=unit)
    await organizations.detach_policy(PolicyId="p-FullAWSAccess", TargetId=unit)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"Version":"2012-10-17"}',
        json.dumps({"Version": "2012", "Statement": [STATEMENT]}),
        json.dumps({"version": "2012-10-17", "Statement": [STATEMENT]}),
        json.dumps({"Statement": [{**STATEMENT, "Effect": "deny"}]}),
        json.dumps({"Statement": [{**STATEMENT, "Principal": "*"}]}),
        json.dumps({"Statement": [{**STATEMENT, "NotAction": "s3:*"}]}),
        json.dumps({"Statement": [{**STATEMENT, "Verb": "s3:*"}]}),
        json.dumps({"Statement": {"Effect": "Deny", "Action": "s3:*"}}),
        '{"Version":"2012-10-17","Statement":[]}',
        json.dumps({"Statement": [STATEMENT, "Deny"]}),
        *(json.dumps({"Statement": [{**STATEMENT, "Action": action}]}) for action in WRONG_ACTIONS),
        *(json.dumps({"Statement": [{**STATEMENT, "Resource": resource}]}) for resource in WRONG_RESOURCES),
        *(json.dumps({"Statement": [{**STATEMENT, "Condition": condition}]}) for condition in WRONG_CONDITIONS),
        *(json.dumps({"Statement": [{**STATEMENT, "Sid": sid}]}) for sid in ("a b!", "a-b", "ä", 5)),
        json.dumps({"Statement": [{**STATEMENT, "Sid": "Same"}] * 2}),
        '{"Statement":{"Effect":"Deny","Effect":"Allow","Action":"s3:*","Resource":"*"}}',
        '{"Statement":{"Effect":"Deny","Action":"s3:*","Resource":"*","Condition":{"NumericEquals":{"a:b":NaN}}}}',
    ],
)
async def test_a_malformed_document_is_refused(organizations: Any, content: str) -> None:
    with pytest.raises(ClientError) as malformed:
        await make_policy(organizations, "Malformed", content)
    assert code(malformed) == "MalformedPolicyDocumentException"


@pytest.mark.parametrize(
    "statement",
    [
        {"Sid": "", "Action": ["s3:Get*", "ec2:?escribe*", "*"]},
        {"Resource": ["arn:aws:s3:::bucket/*", "arn:*:iam::*:role/made/*", "arn:aws:s3:*"]},
        {"Condition": {"ForAnyValue:StringLikeIfExists": {"aws:PrincipalTag/team name": ["a", "b"]}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:db8::/32", "203.0.113.7"]}}},
        {"Condition": {"Null": {"aws:TokenIssueTime": True}, "NumericLessThan": {"s3:max-keys": 10}}},
        {"Condition": {"DateGreaterThan": {"aws:CurrentTime": "2026-01-31T00:00:00Z"}}},
    ],
    ids=str,
)
async def test_what_the_language_has_is_taken(organizations: Any, statement: dict[str, Any]) -> None:
    content = json.dumps({"Version": "2012-10-17", "Id": "any", "Statement": {**STATEMENT, **statement}})
    policy = await make_policy(organizations, f"Taken {uuid4().hex}", content)
    await organizations.delete_policy(PolicyId=policy)


async def test_a_name_and_a_description_are_as_long_as_aws_allows(organizations: Any) -> None:
    async def make(name: str, description: str) -> str:
        made = await organizations.create_policy(Name=name, Description=description, Type=SCP, Content=DOCUMENT)
        return str(made["Policy"]["PolicySummary"]["Id"])

    policy = await make("n" * 128, "d" * 512)
    for attempt in (
        make("n" * 129, ""),
        make("Described", "d" * 513),
        organizations.update_policy(PolicyId=policy, Name="m" * 129),
        organizations.update_policy(PolicyId=policy, Description="e" * 513),
    ):
        with pytest.raises(ClientError) as too_long:
            await attempt
        assert reason(too_long) == ("InvalidInputException", "MAX_LENGTH_EXCEEDED")
    described = (await organizations.describe_policy(PolicyId=policy))["Policy"]["PolicySummary"]
    assert (described["Name"], described["Description"]) == ("n" * 128, "d" * 512)


async def test_a_document_is_as_long_as_aws_allows(organizations: Any) -> None:
    longest = DOCUMENT + " " * (10_240 - len(DOCUMENT))
    policy = await make_policy(organizations, "Longest", longest)
    for attempt in (
        make_policy(organizations, "Longer", longest + " "),
        organizations.update_policy(PolicyId=policy, Content=longest + " "),
    ):
        with pytest.raises(ClientError) as too_long:
            await attempt
        assert reason(too_long) == ("ConstraintViolationException", "POLICY_CONTENT_LIMIT_EXCEEDED")


async def test_a_name_is_used_once_and_what_is_attached_is_not_deleted(organizations: Any) -> None:
    unit = await make_unit(organizations, "Used")
    used, other = [await make_policy(organizations, name) for name in ("Used", "Other")]
    with pytest.raises(ClientError) as created:
        await make_policy(organizations, "Used")
    with pytest.raises(ClientError) as renamed:
        await organizations.update_policy(PolicyId=other, Name="Used")
    await organizations.update_policy(PolicyId=used, Name="Used", Description="d", Content=DOCUMENT)
    await organizations.attach_policy(PolicyId=used, TargetId=unit)
    with pytest.raises(ClientError) as in_use:
        await organizations.delete_policy(PolicyId=used)
    assert [code(created), code(renamed), code(in_use)] == ["DuplicatePolicyException"] * 2 + ["PolicyInUseException"]
    # A unit that goes takes its attachments along.
    await organizations.delete_organizational_unit(OrganizationalUnitId=unit)
    await organizations.delete_policy(PolicyId=used)
    with pytest.raises(ClientError) as immutable:
        await organizations.update_policy(PolicyId="p-FullAWSAccess", Name="Mine")
    assert reason(immutable) == ("InvalidInputException", "IMMUTABLE_POLICY")


async def test_what_is_not_there_is_not_found(organizations: Any) -> None:
    policy = await make_policy(organizations, "Found")
    root = (await organizations.list_roots())["Roots"][0]["Id"]
    for call in ("attach_policy", "detach_policy"):
        for target in ("ou-0000-00000000", "999999999999", "r-0000"):
            with pytest.raises(ClientError) as no_target:
                await getattr(organizations, call)(PolicyId=policy, TargetId=target)
            assert code(no_target) == "TargetNotFoundException"
        with pytest.raises(ClientError) as no_policy:
            await getattr(organizations, call)(PolicyId="p-00000000", TargetId=root)
        assert code(no_policy) == "PolicyNotFoundException"
    for gone in (
        organizations.update_policy(PolicyId="p-00000000", Name="x"),
        organizations.delete_policy(PolicyId="p-00000000"),
        organizations.describe_policy(PolicyId="p-00000000"),
    ):
        with pytest.raises(ClientError) as missing:
            await gone
        assert code(missing) == "PolicyNotFoundException"
    with pytest.raises(ClientError) as listed:
        await organizations.list_policies_for_target(TargetId="ou-0000-00000000", Filter=SCP)
    assert code(listed) == "TargetNotFoundException"


async def test_policies_and_their_targets_are_listed_in_pages(organizations: Any) -> None:
    policy = await make_policy(organizations, "Everywhere", Tags=[{"Key": "made-by", "Value": "test"}])
    units = {await make_unit(organizations, f"Everywhere {number}") for number in range(5)}
    for unit in units:
        await organizations.attach_policy(PolicyId=policy, TargetId=unit)
    pages = organizations.get_paginator("list_targets_for_policy").paginate(
        PolicyId=policy, PaginationConfig={"PageSize": 2}
    )
    targets = [[target["TargetId"] for target in page["Targets"]] async for page in pages]
    assert [len(page) for page in targets] == [2, 2, 1]
    assert {target for page in targets for target in page} == units
    policies = organizations.get_paginator("list_policies").paginate(Filter=SCP, PaginationConfig={"PageSize": 3})
    names = [each["Name"] async for page in policies for each in page["Policies"]]
    assert len(names) == len(set(names))
    assert {"FullAWSAccess", "Everywhere"} <= set(names)
    tags = await organizations.list_tags_for_resource(ResourceId=policy)
    assert tags["Tags"] == [{"Key": "made-by", "Value": "test"}]


async def test_policies_are_enabled_first_and_kept_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEHOLD_SIMULATOR_POLICIES_PER_TARGET", "2")
    async with (
        embedded(tmp_path / "data", services={"simulator"}, fsync=False) as services,
        Aws(services.aws_endpoint).client("organizations", attempts=1) as organizations,
    ):
        await organizations.create_organization(FeatureSet="ALL")
        root = (await organizations.list_roots())["Roots"][0]["Id"]
        first, second = [await make_policy(organizations, name) for name in ("First", "Second")]
        with pytest.raises(ClientError) as disabled:
            await organizations.attach_policy(PolicyId=first, TargetId=root)
        assert code(disabled) == "PolicyTypeNotEnabledException"
        await organizations.enable_policy_type(RootId=root, PolicyType=SCP)
        await organizations.attach_policy(PolicyId=first, TargetId=root)
    async with (
        embedded(tmp_path / "data", services={"simulator"}, fsync=False) as services,
        Aws(services.aws_endpoint).client("organizations", attempts=1) as organizations,
    ):
        with pytest.raises(ClientError) as twice:
            await organizations.attach_policy(PolicyId=first, TargetId=root)
        with pytest.raises(ClientError) as full:
            await organizations.attach_policy(PolicyId=second, TargetId=root)
        assert [code(twice), code(full)] == ["DuplicatePolicyAttachmentException", "ConstraintViolationException"]
        targets = (await organizations.list_targets_for_policy(PolicyId=first))["Targets"]
        assert [target["TargetId"] for target in targets] == [root]
        await organizations.detach_policy(PolicyId=first, TargetId=root)
        await organizations.delete_policy(PolicyId=first)
