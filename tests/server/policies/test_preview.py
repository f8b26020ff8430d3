"""Previews: what a policy would do, and that asking changes nothing."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from server.graphql.ids import decode, encode
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import NewTenant, Owner, Tenant
from tests.server.policies.test_checks import deny
from tests.server.policies.test_mutations import contents, done

PREVIEW = """query($target: PolicyTargetInput!, $document: JSON, $policyId: ID, $requests: [PolicyRequestInput!]) {
  previewPolicy(target: $target, document: $document, policyId: $policyId, requests: $requests) {
    preview {
      accountsAffected { count names } statementsAdded statementsChanged statementsRemoved
      deniedCalls { call statement policy certainty regions reasons }
      quota { code limit used }
      requests {
        action resource accounts before { outcome reasons } after { outcome reasons }
      }
      warnings
    }
    userErrors { code message field }
  }
}"""
TENANCY = {"tenancy": True}


async def preview(ask: Ask, target: Mapping[str, object], **given: object) -> dict[str, Any]:
    answer = (await ask(PREVIEW, target=target, **given))["previewPolicy"]
    assert answer["userErrors"] == []
    found: dict[str, Any] = answer["preview"]
    return found


async def refused(ask: Ask, target: Mapping[str, object], **given: object) -> list[tuple[str, list[str]]]:
    answer = (await ask(PREVIEW, target=target, **given))["previewPolicy"]
    assert answer["preview"] is None
    return [(each["code"], each["field"]) for each in answer["userErrors"]]


@pytest.fixture
async def type_id(owner: Owner, tenant: Tenant) -> UUID:
    found: UUID = await owner.fetchval("SELECT id FROM account_type WHERE tenancy_id = $1", tenant.tenancy_id)
    return found


async def add_account(owner: Owner, tenant: Tenant, name: str, type_id: UUID, **columns: object) -> str:
    values = {"role": "MEMBER", "status": "ACTIVE", "aws_account_id": None, **columns}
    key = await owner.fetchval(
        "INSERT INTO account (tenancy_id, name, email, role, origin, status, aws_account_id, account_type_id,"
        " created_by_kind, created_by_name)"
        " VALUES ($1, $2, $2 || '@example.com', $3, 'CREATED', $4, $5, $6, 'SYSTEM', 'test') RETURNING id",
        *(tenant.tenancy_id, name, values["role"], values["status"], values["aws_account_id"], type_id),
    )
    return encode("acc", key)


async def add_type(owner: Owner, tenant: Tenant, name: str) -> UUID:
    found: UUID = await owner.fetchval(
        "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, $2, false) RETURNING id",
        tenant.tenancy_id,
        name,
    )
    return found


async def test_a_document_on_a_type(ask: Ask, owner: Owner, tenant: Tenant, type_id: UUID) -> None:
    for number in range(12):
        await add_account(owner, tenant, f"A {number:02}", type_id)
    await add_account(owner, tenant, "B", type_id, status="CANCELLED")
    await add_account(owner, tenant, "C", type_id, role="MANAGEMENT")
    await add_account(owner, tenant, "D", await add_type(owner, tenant, "Other"))
    before = await contents(owner, tenant)
    requests = [{"action": "kms:Decrypt", "resource": "arn:aws:kms:eu-west-1:1:key/k"}, {"action": "s3:GetObject"}]
    found = await preview(ask, {"accountTypeId": encode("typ", type_id)}, document=deny("kms:*"), requests=requests)
    names = sorted([*(f"A {number:02}" for number in range(12)), await first_account(owner, tenant)])
    assert found.pop("accountsAffected") == {"count": 13, "names": names[:10]}
    why = "Denied by statement 1 of this document, attached to the account type."
    allowed, denied = {"outcome": "ALLOWED", "reasons": []}, {"outcome": "DENIED", "reasons": [why]}
    assert found == {
        "statementsAdded": 1,
        "statementsChanged": 0,
        "statementsRemoved": 0,
        "deniedCalls": [],
        "quota": {"code": "POLICIES_PER_TARGET", "limit": 10, "used": 2},
        "requests": [
            {**requests[0], "accounts": 13, "before": allowed, "after": denied},
            {"action": "s3:GetObject", "resource": None, "accounts": 13, "before": allowed, "after": allowed},
        ],
        "warnings": [],
    }
    assert await contents(owner, tenant) == before


async def set_in_aws(owner: Owner, policy_id: str, attachments: str = "ACTIVE", **columns: object) -> None:
    """What the rows of a policy and its attachments are when a worker has been at it."""
    key = decode(policy_id, "pol")
    values = {"state": "ACTIVE", "aws_version": 1, **columns}
    await owner.execute(
        "UPDATE policy SET state = $2, aws_version = $3, aws_policy_id = $4 WHERE id = $1",
        *(key, values["state"], values["aws_version"], f"p-{key.hex}"),
    )
    await owner.execute("UPDATE policy_attachment SET state = $2 WHERE policy_id = $1", key, attachments)


async def attached(ask: Ask, document: object, target: Mapping[str, object], name: str = "There") -> str:
    created = await done(ask, "createPolicy", name=name, description="", document=document)
    await done(ask, "attachPolicy", policyId=created["id"], target=target)
    return str(created["id"])


async def outcomes(ask: Ask, request: Mapping[str, object], **given: object) -> tuple[str, str]:
    """Before and after, of a request that is the same in all accounts."""
    given.setdefault("document", deny("kms:Decrypt"))
    [found] = (await preview(ask, TENANCY, requests=[request], **given))["requests"]
    return found["before"]["outcome"], found["after"]["outcome"]


async def first_account(owner: Owner, tenant: Tenant) -> str:
    return str(await owner.fetchval("SELECT name FROM account WHERE id = $1", tenant.account_id))


async def test_what_is_attached_already_counts(ask: Ask, owner: Owner, tenant: Tenant, type_id: UUID) -> None:
    """On one type everything is denied already, on the other it would be: accounts are told apart."""
    other = await add_type(owner, tenant, "Other")
    await add_account(owner, tenant, "Elsewhere", other)
    there = await done(ask, "createPolicy", name="No keys", description="", document=deny("kms:*", Sid="Keys"))
    await done(ask, "attachPolicy", policyId=there["id"], target={"accountTypeId": encode("typ", other)})
    await set_in_aws(owner, there["id"])
    request = [{"action": "kms:Decrypt"}]
    found = await preview(ask, TENANCY, document=deny("kms:Decrypt"), requests=request)
    pairs = {(each["before"]["outcome"], each["after"]["outcome"]): each for each in found["requests"]}
    assert {pair: each["accounts"] for pair, each in pairs.items()} == {
        ("ALLOWED", "DENIED"): 1,
        ("DENIED", "DENIED"): 1,
    }
    before = pairs["DENIED", "DENIED"]["before"]
    assert before["reasons"] == ["Denied by Keys of No keys, attached to the account type."]
    # The policy by its id, where it is and where it is not.
    where_it_is = await preview(ask, {"accountTypeId": encode("typ", other)}, policyId=there["id"])
    assert (where_it_is["statementsAdded"], where_it_is["accountsAffected"]["count"]) == (0, 0)
    assert where_it_is["quota"]["used"] == 2
    on_tenancy = await preview(ask, TENANCY, policyId=there["id"])
    assert (on_tenancy["statementsAdded"], on_tenancy["accountsAffected"]["count"]) == (1, 2)
    # With another document it is lifted where it is attached.
    wider = deny("sqs:*", Sid="Keys")
    changed = await preview(
        ask, {"accountTypeId": encode("typ", other)}, policyId=there["id"], document=wider, requests=request
    )
    assert (changed["statementsAdded"], changed["statementsChanged"], changed["accountsAffected"]["count"]) == (0, 1, 1)
    [lifted] = changed["requests"]
    assert (lifted["before"]["outcome"], lifted["after"]["outcome"]) == ("DENIED", "ALLOWED")


async def test_freeholds_own_calls(ask: Ask) -> None:
    document = deny("iam:UpdateAccountPasswordPolicy", Sid="No")
    document["Statement"] += deny("ec2:*", Condition={"StringEquals": {"aws:RequestTag/team": "x"}})["Statement"]
    found = await preview(ask, TENANCY, document=document)
    certain = [each for each in found["deniedCalls"] if each["certainty"] == "DENIED"]
    assert certain == [
        {
            "call": "iam:UpdateAccountPasswordPolicy",
            "statement": 'Statement[0] ("No")',
            "policy": None,
            "certainty": "DENIED",
            "regions": ["us-east-1"],
            "reasons": [],
        }
    ]
    perhaps = [each for each in found["deniedCalls"] if each["certainty"] == "PERHAPS"]
    assert {each["call"].partition(":")[0] for each in perhaps} == {"ec2"}
    assert {tuple(each["reasons"]) for each in perhaps} == {("the value of aws:RequestTag/team",)}


async def test_accounts_that_a_condition_tells_apart(ask: Ask, owner: Owner, tenant: Tenant, type_id: UUID) -> None:
    for number in range(5):
        await add_account(owner, tenant, f"A {number}", type_id, aws_account_id=f"55555555555{number}")
    sandbox = {"StringLike": {"aws:PrincipalAccount": ["555555555551", "*53", "666*"]}}
    found = await preview(ask, TENANCY, document=deny("kms:*", Condition=sandbox), requests=[{"action": "kms:Decrypt"}])
    # The tenant's own account has no number yet.
    outcomes = {each["after"]["outcome"]: each["accounts"] for each in found["requests"]}
    assert outcomes == {"DENIED": 2, "ALLOWED": 3, "UNKNOWN": 1}


async def test_what_is_told_of_a_request_counts(ask: Ask) -> None:
    from_office = deny("kms:*", Condition={"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}})
    inside = {"key": "aws:SourceIp", "values": ["192.0.2.7"]}
    requests = [{"action": "kms:Decrypt"}, {"action": "kms:Decrypt", "context": [inside]}]
    unknown, known = (await preview(ask, TENANCY, document=from_office, requests=requests))["requests"]
    assert unknown["after"] == {
        "outcome": "UNKNOWN",
        "reasons": ["statement 1 of this document, attached to the tenancy: it depends on the value of aws:SourceIp."],
    }
    assert known["after"]["outcome"] == "ALLOWED"


async def test_a_type_without_accounts_has_those_to_come(ask: Ask, owner: Owner, tenant: Tenant) -> None:
    target = {"accountTypeId": encode("typ", await add_type(owner, tenant, "Empty"))}
    found = await preview(ask, target, document=deny("kms:*"), requests=[{"action": "kms:Decrypt"}])
    assert found["accountsAffected"] == {"count": 0, "names": []}
    [request] = found["requests"]
    assert (request["accounts"], request["after"]["outcome"]) == (0, "DENIED")


async def test_what_cannot_be_previewed(ask: Ask, owner: Owner, new_tenant: NewTenant, type_id: UUID) -> None:
    theirs = await new_tenant()
    document = deny("kms:*")
    assert await refused(ask, TENANCY) == [("VALIDATION", ["document"])]
    assert await refused(ask, TENANCY, document="{") == [("INVALID_DOCUMENT", ["document"])]
    assert await refused(ask, TENANCY, policyId=encode("pol", type_id)) == [("NOT_FOUND", ["policyId"])]
    assert await refused(ask, TENANCY, policyId="pol_1") == [("VALIDATION", ["policyId"])]
    foreign = {"accountId": encode("acc", theirs.account_id)}
    assert await refused(ask, foreign, document=document) == [("NOT_FOUND", ["target", "accountId"])]
    wildcard = [{"action": "kms:Decrypt"}, {"action": "kms:*"}]
    assert await refused(ask, TENANCY, document=document, requests=wildcard) == [
        ("VALIDATION", ["requests", "1", "action"])
    ]
    unknown = [{"action": "s3:NoSuchThing"}]
    assert await refused(ask, TENANCY, document=document, requests=unknown) == [
        ("VALIDATION", ["requests", "0", "action"])
    ]
    many = [{"action": "kms:Decrypt"}] * 51
    assert await refused(ask, TENANCY, document=document, requests=many) == [("VALIDATION", ["requests"])]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"resource": "arn:aws:s3:::" + "a" * 2_048}, ["resource"]),
        ({"resource": "bucket"}, ["resource"]),
        ({"resource": "arn:aws:s3:::a\x1c"}, ["resource"]),
        ({"context": [{"key": "aws:x", "values": ["a" * 2_049]}]}, ["context"]),
        ({"context": [{"key": "aws:x", "values": ["a"] * 101}]}, ["context"]),
        ({"context": [{"key": "aws:x", "values": ["\x10"]}]}, ["context"]),
        ({"context": [{"key": "aws:x", "values": []}, {"key": "AWS:X", "values": []}]}, ["context", "1", "key"]),
        ({"context": [{"key": "a:" + "a" * 2_048, "values": []}]}, ["context", "0", "key"]),
        ({"context": [{"key": "aws:principalaccount", "values": ["1"]}]}, ["context", "0", "key"]),
    ],
    ids=lambda value: str(value)[:40].encode("unicode_escape").decode(),
)
async def test_a_request_that_nobody_can_make(ask: Ask, request_: dict[str, object], field: list[str]) -> None:
    requests = [{"action": "s3:GetObject", **request_}]
    assert await refused(ask, TENANCY, document=deny("kms:*"), requests=requests) == [
        ("VALIDATION", ["requests", "0", *field])
    ]


async def test_an_action_that_is_newer_than_our_list(ask: Ask) -> None:
    given = {"document": deny("kms:*"), "requests": [{"action": "kms:NoSuch"}], "allowUnknownActions": ["KMS:nosuch"]}
    query = PREVIEW.replace("$requests:", "$allowUnknownActions: [String!], $requests:").replace(
        "requests: $requests", "requests: $requests, allowUnknownActions: $allowUnknownActions"
    )
    answer = (await ask(query, target=TENANCY, **given))["previewPolicy"]
    assert [each["after"]["outcome"] for each in answer["preview"]["requests"]] == ["DENIED"]


@pytest.mark.parametrize(
    ("resource", "outcome"),
    [
        ("arn:aws:s3:::secret/key", "DENIED"),
        ("arn:aws:s3:::secret/*", "DENIED"),
        ("arn:aws:s3:::secret/?", "DENIED"),
        ("arn:aws:s3:::secr*", "UNKNOWN"),
        ("arn:aws:s3:::*/*", "UNKNOWN"),
        ("arn:aws:s3:::secret?*", "UNKNOWN"),
        ("*", "UNKNOWN"),
        ("arn:aws:s3:::other/*", "ALLOWED"),
        ("arn:aws:s3:::?ecre", "ALLOWED"),
    ],
)
async def test_a_resource_with_wildcards_stands_for_all_of_them(ask: Ask, resource: str, outcome: str) -> None:
    document = deny("s3:GetObject", Resource="arn:aws:s3:::secret/*")
    request = {"action": "s3:GetObject", "resource": resource}
    assert await outcomes(ask, request, document=document) == ("ALLOWED", outcome)


async def test_an_action_that_is_not_about_single_resources(ask: Ask) -> None:
    """AWS decides it for `*`, which an ARN does not match."""
    instances = "arn:aws:ec2:*:*:instance/*"
    requests = [{"action": "ec2:DescribeInstances", "resource": "arn:aws:ec2:eu-west-1:111122223333:instance/i-1"}]
    found = await preview(ask, TENANCY, document=deny("ec2:*", Resource=instances), requests=requests)
    [request] = found["requests"]
    assert (request["resource"], request["after"]["outcome"]) == ("*", "ALLOWED")
    [warning] = found["warnings"]
    assert warning.startswith("requests[0]: ec2:DescribeInstances is not about single resources")


async def test_the_number_of_an_account_anywhere(ask: Ask, owner: Owner, tenant: Tenant, type_id: UUID) -> None:
    await add_account(owner, tenant, "A", type_id, aws_account_id="111111111111")
    await add_account(owner, tenant, "B", type_id, aws_account_id="922222222222")
    joined = deny("s3:GetObject", Resource="arn:aws:s3:::logs2${aws:PrincipalAccount}/*")
    greater = deny("s3:GetObject", Condition={"NumericGreaterThan": {"aws:PrincipalAccount": "500000000000"}})
    request = {"action": "s3:GetObject", "resource": "arn:aws:s3:::logs2111111111111/x"}
    target = {"accountTypeId": encode("typ", type_id)}
    for document in (joined, greater):
        found = (await preview(ask, target, document=document, requests=[request]))["requests"]
        # The tenant's own account has no number yet.
        assert {each["after"]["outcome"]: each["accounts"] for each in found} == {
            "ALLOWED": 1,
            "DENIED": 1,
            "UNKNOWN": 1,
        }


async def test_a_policy_may_be_called_like_a_document_without_a_name(ask: Ask, owner: Owner) -> None:
    policy_id = await attached(ask, deny("s3:DeleteBucket"), TENANCY, name="this document")
    await set_in_aws(owner, policy_id)
    request = {"action": "s3:DeleteBucket", "resource": "arn:aws:s3:::b"}
    assert await outcomes(ask, request) == ("DENIED", "DENIED")


async def test_a_document_that_can_no_longer_be_read(ask: Ask, owner: Owner) -> None:
    policy_id = await attached(ask, deny("s3:DeleteBucket"), TENANCY)
    await set_in_aws(owner, policy_id)
    broken = '{"Version":"2012-10-17","Statement":[{"Sid":"a b","Effect":"Deny","Action":"s3:*","Resource":"*"}]}'
    for table, column in (("policy", "id"), ("policy_version", "policy_id")):
        await owner.execute(f"UPDATE {table} SET document = $2 WHERE {column} = $1", decode(policy_id, "pol"), broken)
    requests = [{"action": "s3:DeleteBucket"}, {"action": "kms:Decrypt"}]
    bucket, key = (await preview(ask, TENANCY, document=deny("kms:Decrypt"), requests=requests))["requests"]
    why = "It depends on the policy There, whose document is older than the checks and breaks them."
    assert bucket["before"] == bucket["after"] == {"outcome": "UNKNOWN", "reasons": [why]}
    assert (key["before"]["outcome"], key["after"]["outcome"]) == ("UNKNOWN", "DENIED")
    assert await refused(ask, TENANCY, policyId=policy_id) == [("INVALID_DOCUMENT", ["policyId"])]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("PENDING", ("ALLOWED", "DENIED")),
        ("ACTIVE", ("DENIED", "DENIED")),
        ("DETACHING", ("DENIED", "ALLOWED")),
        ("FAILED", ("ALLOWED", "ALLOWED")),
    ],
)
async def test_before_is_what_is_in_force_and_after_what_is_wanted(
    ask: Ask, owner: Owner, state: str, expected: tuple[str, str]
) -> None:
    policy_id = await attached(ask, deny("s3:DeleteBucket"), TENANCY)
    await set_in_aws(owner, policy_id, state)
    assert await outcomes(ask, {"action": "s3:DeleteBucket"}) == expected
    # AWS counts it until it is gone.
    assert (await preview(ask, TENANCY, document=deny("kms:*")))["quota"]["used"] == 3


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"state": "ACTIVE", "aws_version": 2}, ("ALLOWED", "ALLOWED")),
        ({"state": "PENDING", "aws_version": 1}, ("DENIED", "ALLOWED")),
        ({"state": "FAILED", "aws_version": 1}, ("DENIED", "DENIED")),
        ({"state": "PENDING", "aws_version": None}, ("UNKNOWN", "ALLOWED")),
        ({"state": "FAILED", "aws_version": None}, ("UNKNOWN", "UNKNOWN")),
    ],
)
async def test_in_force_is_the_version_that_aws_has(
    ask: Ask, owner: Owner, columns: dict[str, object], expected: tuple[str, str]
) -> None:
    policy_id = await attached(ask, deny("s3:DeleteBucket"), TENANCY)
    await done(ask, "updatePolicy", policyId=policy_id, document=deny("sqs:*"))
    await set_in_aws(owner, policy_id, "ACTIVE", **columns)
    assert await outcomes(ask, {"action": "s3:DeleteBucket"}) == expected


async def test_a_document_that_restricts_nothing_is_told(ask: Ask) -> None:
    document = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}
    found = await preview(ask, TENANCY, document=document, requests=[{"action": "s3:DeleteBucket"}])
    [warning] = found["warnings"]
    assert warning.startswith("The document has no Deny and restricts nothing")
    [request] = found["requests"]
    assert request["before"] == request["after"] == {"outcome": "ALLOWED", "reasons": []}
