"""Before a document is stored: every problem is told at its place, and no policy locks Freehold out."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.service import SYSTEM
from server.database import transaction
from server.graphql.ids import encode
from server.policies import requests
from server.policies.checks import check_document
from server.policies.foundation import MANAGED
from server.tenancies.service import ROLE
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import Owner, Tenant
from tests.server.policies.test_mutations import contents

CREATE = """mutation($input: CreatePolicyInput!) { createPolicy(input: $input) {
    policy { id document } warnings userErrors { code message field }
} }"""
UPDATE = """mutation($input: UpdatePolicyInput!) { updatePolicy(input: $input) {
    policy { id document } warnings userErrors { code message field }
} }"""
ATTACH = """mutation($input: AttachPolicyInput!) { attachPolicy(input: $input) {
    attachment { id } warnings userErrors { code message field }
} }"""
EXEMPT = {"ArnNotLike": {"aws:PrincipalArn": f"arn:*:iam::*:role/{ROLE}"}}


def deny(*actions: str, **elements: object) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Action": list(actions), "Resource": "*", **elements}],
    }


async def create(ask: Ask, document: object, **input_: object) -> dict[str, Any]:
    given = {"name": "Checked", "description": "", "document": document, **input_}
    payload: dict[str, Any] = (await ask(CREATE, input=given))["createPolicy"]
    return payload


async def errors(ask: Ask, document: object) -> list[tuple[str, str]]:
    """The code and message of each error; all of them are the document's."""
    payload = await create(ask, document)
    assert (payload["policy"], payload["warnings"]) == (None, [])
    assert all(each["field"] == ["document"] for each in payload["userErrors"])
    return [(each["code"], each["message"]) for each in payload["userErrors"]]


async def test_every_problem_is_told_at_once_with_its_place(ask: Ask, owner: Owner, tenant: Tenant) -> None:
    before = await contents(owner, tenant)
    wrong = {"Version": "2012", "Statement": [{"Effect": "Forbid", "Action": "s3", "Resource": "*", "Principal": "*"}]}
    found = await errors(ask, wrong)
    assert {code for code, _ in found} == {"INVALID_DOCUMENT"}
    assert [message.partition(": ")[0] for _, message in found] == [
        "Version",
        "Statement[0].Principal",
        "Statement[0].Effect",
        "Statement[0].Action",
    ]
    assert await contents(owner, tenant) == before


async def test_text_that_is_no_json_has_line_and_column(ask: Ask) -> None:
    [(code, message)] = await errors(ask, '{\n  "Version": "2012-10-17",\n  "Statement" []\n}')
    assert (code, "(line 3, column 15)" in message) == ("INVALID_DOCUMENT", True)


async def test_an_action_that_nobody_knows_has_line_and_column_in_a_text(ask: Ask) -> None:
    [(_, message)] = await errors(ask, json.dumps(deny("s3:*", "s3:GetObjct"), indent=2))
    assert message.startswith("Statement[0].Action[1]: ")
    assert message.endswith("(line 8, column 9).")


async def test_a_document_is_measured_without_its_spaces(ask: Ask) -> None:
    of_limit = deny("s3:DeleteBucket", Resource=[f"arn:aws:s3:::{'b' * 60}{number:03}" for number in range(120)])
    excess = 10_240 - len(json.dumps(of_limit, separators=(",", ":")))
    of_limit["Statement"][0]["Sid"] = "s" * (excess - len('"Sid":"",'))
    assert len(json.dumps(of_limit, indent=8)) > 10_240
    assert (await create(ask, json.dumps(of_limit, indent=8)))["userErrors"] == []
    of_limit["Statement"][0]["Sid"] += "s"
    [(code, message)] = await errors(ask, of_limit)
    assert (code, "has 10241 characters; AWS takes 10240" in message) == ("INVALID_DOCUMENT", True)


async def test_an_action_that_nobody_knows_is_taken_on_request(ask: Ask) -> None:
    [(code, message)] = await errors(ask, deny("s3:DeleteBuket"))
    assert (code, message.startswith("Statement[0].Action[0]: ")) == ("INVALID_DOCUMENT", True)
    assert "s3:DeleteBucket" in message
    created = await create(ask, deny("s3:DeleteBuket"), allowUnknownActions=["s3:DeleteBuket"])
    assert created["policy"]["document"] == deny("s3:DeleteBuket")
    input_ = {"policyId": created["policy"]["id"], "document": deny("s3:NoSuch")}
    [error] = (await ask(UPDATE, input=input_))["updatePolicy"]["userErrors"]
    assert error["code"] == "INVALID_DOCUMENT"
    accepted = {**input_, "allowUnknownActions": ["S3:nosuch"]}
    assert (await ask(UPDATE, input=accepted))["updatePolicy"]["userErrors"] == []


async def test_a_policy_that_locks_freehold_out_is_refused_by_statement_and_call(
    ask: Ask, owner: Owner, tenant: Tenant
) -> None:
    document = deny("kms:*")
    document["Statement"] += deny("iam:UpdateAccountPasswordPolicy", Sid="NoPasswords")["Statement"]
    before = await contents(owner, tenant)
    [(code, message)] = await errors(ask, document)
    assert code == "LOCKOUT"
    assert 'Statement[1] ("NoPasswords")' in message
    assert "iam:UpdateAccountPasswordPolicy" in message
    assert f"role/{ROLE}" in message
    assert await contents(owner, tenant) == before
    created = await create(ask, deny("kms:*"))
    input_ = {"policyId": created["policy"]["id"], "document": document}
    [error] = (await ask(UPDATE, input=input_))["updatePolicy"]["userErrors"]
    assert (error["code"], error["field"]) == ("LOCKOUT", ["document"])
    document["Statement"][1]["Condition"] = EXEMPT
    assert (await ask(UPDATE, input=input_))["updatePolicy"]["userErrors"] == []


async def test_an_allow_list_locks_nobody_out_beside_full_access(ask: Ask) -> None:
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
    created = await create(ask, {"Version": "2012-10-17", "Statement": statement})
    assert created["userErrors"] == []
    [warning] = created["warnings"]
    assert warning.startswith("The document has no Deny and restricts nothing")
    attached = await ask(ATTACH, input={"policyId": created["policy"]["id"], "target": {"tenancy": True}})
    assert attached["attachPolicy"]["warnings"] == [warning]
    changed = await ask(UPDATE, input={"policyId": created["policy"]["id"], "document": deny("s3:GetObject")})
    assert changed["updatePolicy"]["warnings"] == []


async def test_what_may_lock_freehold_out_is_a_warning(ask: Ask, tenant: Tenant) -> None:
    from_office = deny("iam:*", Condition={"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}})
    created = await create(ask, from_office)
    [warning] = created["warnings"]
    assert warning.startswith("Statement[0] may deny Freehold's own calls iam:")
    assert warning.endswith("it depends on the value of aws:SourceIp.")
    input_ = {"policyId": created["policy"]["id"], "target": {"tenancy": True}}
    assert (await ask(ATTACH, input=input_))["attachPolicy"]["warnings"] == [warning]


async def test_a_statement_has_one_warning_however_many_calls_it_is_about(ask: Ask) -> None:
    of_some = deny("iam:*", Sid="Roles", Resource="arn:aws:iam::*:role/freehold/a*")
    of_some["Statement"] += deny("ec2:*", Condition={"Bool": {"aws:x": "true"}})["Statement"]
    roles, machines = (await create(ask, of_some))["warnings"]
    assert roles.startswith(
        'Statement[0] ("Roles") may deny Freehold\'s own calls iam:AttachRolePolicy, iam:CreateRole, '
    )
    assert " and the resource of iam:CreateRole and " in roles
    assert roles.endswith(" more.")
    assert machines.endswith("it depends on the value of aws:x.")


async def test_an_older_policy_that_locks_freehold_out_is_not_attached(
    ask: Ask, worker_engine: AsyncEngine, owner: Owner, tenant: Tenant
) -> None:
    async with transaction(worker_engine) as session:
        policy_id = await requests.create_policy(
            session, SYSTEM, tenant.tenancy_id, name="Older", description="", document=deny("iam:*")
        )
    before = await contents(owner, tenant)
    input_ = {"policyId": encode("pol", policy_id), "target": {"tenancy": True}}
    payload = (await ask(ATTACH, input=input_))["attachPolicy"]
    [error] = payload["userErrors"]
    assert (payload["attachment"], error["code"], error["field"]) == (None, "LOCKOUT", ["policyId"])
    assert await contents(owner, tenant) == before


@pytest.mark.parametrize("managed", MANAGED, ids=lambda managed: str(managed.name))
async def test_freeholds_own_policies_could_be_written_by_anybody(
    ask: Ask, engine: AsyncEngine, tenant: Tenant, managed: Any
) -> None:
    checked = await check_document(engine, tenant.tenancy_id, managed.document)
    assert (checked.value, checked.warnings) == (managed.document, ())


NUMBER = "111122223333"


async def attach(ask: Ask, policy_id: str, target: Mapping[str, object]) -> dict[str, Any]:
    payload: dict[str, Any] = (await ask(ATTACH, input={"policyId": policy_id, "target": target}))["attachPolicy"]
    return payload


@pytest.fixture
async def account(owner: Owner, tenant: Tenant) -> dict[str, object]:
    """The tenant's account, with a number, as a target."""
    await owner.execute("UPDATE account SET aws_account_id = $2 WHERE id = $1", tenant.account_id, NUMBER)
    return {"accountId": encode("acc", tenant.account_id)}


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"aws:PrincipalAccount": NUMBER}},
        {"StringLike": {"aws:PrincipalAccount": "*3333"}},
        {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{NUMBER}:role/*"}},
        {"NumericEquals": {"aws:PrincipalAccount": NUMBER}},
    ],
    ids=str,
)
async def test_a_lockout_of_the_accounts_of_some_numbers(
    ask: Ask, owner: Owner, tenant: Tenant, account: dict[str, object], condition: dict[str, Any]
) -> None:
    """Whether it is one depends on where it is attached."""
    created = await create(ask, deny("iam:*", Condition=condition))
    [warning] = created["warnings"]
    assert warning.startswith("Statement[0] may deny Freehold's own calls iam:")
    assert warning.endswith("it depends on the number of the account.")
    before = await contents(owner, tenant)
    for target in (account, {"tenancy": True}):
        payload = await attach(ask, created["policy"]["id"], target)
        [error] = payload["userErrors"]
        assert (payload["attachment"], error["code"], error["field"]) == (None, "LOCKOUT", ["policyId"])
    assert await contents(owner, tenant) == before
    await owner.execute("UPDATE account SET aws_account_id = '444455556666' WHERE id = $1", tenant.account_id)
    elsewhere = await attach(ask, created["policy"]["id"], account)
    assert (elsewhere["userErrors"], elsewhere["warnings"]) == ([], [])


async def test_accounts_that_are_exempted_by_number(ask: Ask, owner: Owner, account: dict[str, object]) -> None:
    exempt = deny("iam:*", Condition={"StringNotEquals": {"aws:PrincipalAccount": [NUMBER, "444455556666"]}})
    created = await create(ask, exempt)
    assert (created["userErrors"], len(created["warnings"])) == ([], 1)
    policy_id = created["policy"]["id"]
    attached = await attach(ask, policy_id, account)
    assert (attached["userErrors"], attached["warnings"]) == ([], [])
    # Where it is attached, another document is in force at once.
    input_ = {
        "policyId": policy_id,
        "document": deny("iam:*", Condition={"StringNotEquals": {"aws:PrincipalAccount": "1"}}),
    }
    [error] = (await ask(UPDATE, input=input_))["updatePolicy"]["userErrors"]
    assert (error["code"], error["field"]) == ("LOCKOUT", ["document"])
    changed = {
        "policyId": policy_id,
        "document": deny("iam:*", Condition={"StringNotLike": {"aws:PrincipalAccount": NUMBER}}),
    }
    payload = (await ask(UPDATE, input=changed))["updatePolicy"]
    assert (payload["userErrors"], payload["warnings"]) == ([], [])


async def test_a_policy_that_can_no_longer_be_read_is_not_attached(
    ask: Ask, worker_engine: AsyncEngine, tenant: Tenant
) -> None:
    document = deny("iam:*", Sid="a b")
    async with transaction(worker_engine) as session:
        policy_id = await requests.create_policy(
            session, SYSTEM, tenant.tenancy_id, name="Older", description="", document=document
        )
    [error] = (await attach(ask, encode("pol", policy_id), {"tenancy": True}))["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID_DOCUMENT", ["policyId"])
