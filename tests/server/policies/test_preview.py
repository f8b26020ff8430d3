"""Previews: what a policy would do, and that asking changes nothing."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from server.graphql.ids import encode
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


async def first_account(owner: Owner, tenant: Tenant) -> str:
    return str(await owner.fetchval("SELECT name FROM account WHERE id = $1", tenant.account_id))


async def test_what_is_attached_already_counts(ask: Ask, owner: Owner, tenant: Tenant, type_id: UUID) -> None:
    """On one type everything is denied already, on the other it would be: accounts are told apart."""
    other = await add_type(owner, tenant, "Other")
    await add_account(owner, tenant, "Elsewhere", other)
    there = await done(ask, "createPolicy", name="No keys", description="", document=deny("kms:*", Sid="Keys"))
    await done(ask, "attachPolicy", policyId=there["id"], target={"accountTypeId": encode("typ", other)})
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
    many = [{"action": "kms:Decrypt"}] * 51
    assert await refused(ask, TENANCY, document=document, requests=many) == [("VALIDATION", ["requests"])]
