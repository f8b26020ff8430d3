"""Quotas: what they are, who sets them, and that nothing is begun that would exceed one."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.service import SYSTEM
from server.assurance.requests import create_account
from server.database import transaction
from server.graphql.ids import decode
from server.identity.models import Role
from server.identity.service import create_token
from tests.migrations.arrange import is_waited_for
from tests.server.assurance.test_mutations import contents
from tests.server.fixtures import NewTenant, Owner, Tenant
from tests.server.quotas.conftest import Ask
from tests.server.waiting import until

QUOTAS = "{ tenancy { quotas { code limit used source readAt } } }"
SET = """mutation($input: SetQuotaInput!) {
  setQuota(input: $input) { tenancy { quotas { code limit source } } userErrors { code message field } }
}"""
CREATES = {
    "createAccount": "CreateAccountInput",
    "createAccountType": "CreateAccountTypeInput",
    "createPolicy": "CreatePolicyInput",
    "attachPolicy": "AttachPolicyInput",
}
SELECTIONS = {
    "createAccount": "account { id }",
    "createAccountType": "accountType { id }",
    "createPolicy": "policy { id }",
    "attachPolicy": "attachment { id }",
}
DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "dynamodb:DeleteTable", "Resource": "*"}],
}


async def quotas(ask: Ask) -> dict[str, dict[str, Any]]:
    return {each.pop("code"): each for each in (await ask(QUOTAS))["tenancy"]["quotas"]}


async def set_quota(ask: Ask, code: str, limit: int | None) -> dict[str, dict[str, Any]]:
    payload = (await ask(SET, input={"code": code, "limit": limit}))["setQuota"]
    assert payload["userErrors"] == []
    return {each.pop("code"): each for each in payload["tenancy"]["quotas"]}


async def run(ask: Ask, mutation: str, **values: object) -> dict[str, Any]:
    document = f"""mutation($input: {CREATES[mutation]}!) {{
        {mutation}(input: $input) {{ {SELECTIONS[mutation]} userErrors {{ code message field }} }}
    }}"""
    payload: dict[str, Any] = (await ask(document, input=values))[mutation]
    return payload


async def done(ask: Ask, mutation: str, **values: object) -> str:
    payload = await run(ask, mutation, **values)
    assert payload.pop("userErrors") == []
    [made] = payload.values()
    return str(made["id"])


async def policy(ask: Ask, name: str) -> str:
    return await done(ask, "createPolicy", name=name, description="", document=DOCUMENT)


@pytest.fixture
async def kind(ask: Ask) -> str:
    return await done(ask, "createAccountType", name="Development")


async def test_each_has_its_documented_limit_and_what_is_in_use(ask: Ask, kind: str) -> None:
    first, second = [await policy(ask, name) for name in ("One", "Two")]
    for key, target in (
        (first, {"tenancy": True}),
        (first, {"accountTypeId": kind}),
        (second, {"accountTypeId": kind}),
    ):
        await done(ask, "attachPolicy", policyId=key, target=target)
    cancelled = await done(ask, "createAccount", name="Given up", accountTypeId=kind)
    query = "query($by: AccountBy!) { account(by: $by) { setup { id } } }"
    setup = (await ask(query, by={"id": cancelled}))["account"]["setup"]["id"]
    await ask("mutation($id: ID!) { cancelAccountSetup(input: {setupId: $id}) { userErrors { code } } }", id=setup)
    await done(ask, "createAccount", name="There", accountTypeId=kind)
    documented = {"source": "DOCUMENTED", "readAt": None}
    assert list((found := await quotas(ask)).items()) == [
        # The account that the tenancy has from the start, and one more.
        ("ACCOUNTS", {"limit": None, "used": 2, **documented}),
        # Freehold's three, and those of two types.
        ("ORGANIZATIONAL_UNITS", {"limit": 2_000, "used": 5, **documented}),
        ("POLICIES", {"limit": 10_000, "used": 2, **documented}),
        # AWS's FullAWSAccess too.
        ("POLICIES_PER_TARGET", {"limit": 10, "used": 3, **documented}),
        ("POLICY_SIZE", {"limit": 10_240, "used": 103, **documented}),
    ], found


async def test_an_administrator_sets_one_and_goes_back(ask: Ask, owner: Owner, tenant: Tenant) -> None:
    assert (await set_quota(ask, "ACCOUNTS", 50))["ACCOUNTS"] == {"limit": 50, "source": "SET"}
    await owner.execute(
        "UPDATE quota SET aws_limit = 20, read_at = '2026-01-02T03:04:05Z' WHERE tenancy_id = $1", tenant.tenancy_id
    )
    read = "2026-01-02T03:04:05+00:00"
    assert (await quotas(ask))["ACCOUNTS"] == {"limit": 50, "used": 1, "source": "SET", "readAt": read}
    assert (await set_quota(ask, "ACCOUNTS", None))["ACCOUNTS"] == {"limit": 20, "source": "AWS"}
    assert (await set_quota(ask, "POLICIES", None))["POLICIES"] == {"limit": 10_000, "source": "DOCUMENTED"}


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_is_at_least_one(ask: Ask, limit: int) -> None:
    payload = (await ask(SET, input={"code": "ACCOUNTS", "limit": limit}))["setQuota"]
    assert payload["tenancy"] is None
    assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [("VALIDATION", ["limit"])]
    assert (await quotas(ask))["ACCOUNTS"]["limit"] is None


async def test_it_takes_an_administrator_and_reaches_no_other_tenancy(
    ask: Ask, server: httpx.AsyncClient, tenant: Tenant, new_tenant: NewTenant, worker_engine: AsyncEngine
) -> None:
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "operator", Role.OPERATOR)
    body = {"query": SET, "variables": {"input": {"code": "POLICIES", "limit": 5}}}
    answer = (await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})).json()
    assert [error["code"] for error in answer["data"]["setQuota"]["userErrors"]] == ["FORBIDDEN"]
    theirs = await server.post("/graphql", json=body, headers=(await new_tenant()).headers)
    assert theirs.json()["data"]["setQuota"]["userErrors"] == []
    assert (await quotas(ask))["POLICIES"]["source"] == "DOCUMENTED"


async def arrange(ask: Ask, kind: str, code: str) -> list[tuple[str, dict[str, object]]]:
    """Eight requests, each of which adds one to the quota."""
    if code == "ACCOUNTS":
        return [("createAccount", {"name": f"A {n}", "accountTypeId": kind}) for n in range(8)]
    if code == "ORGANIZATIONAL_UNITS":
        return [("createAccountType", {"name": f"T {n}"}) for n in range(8)]
    if code == "POLICIES":
        await policy(ask, "There already")
        return [("createPolicy", {"name": f"P {n}", "description": "", "document": DOCUMENT}) for n in range(8)]
    policies = [await policy(ask, f"P {n}") for n in range(8)]
    return [("attachPolicy", {"policyId": each, "target": {"accountTypeId": kind}}) for each in policies]


LIMITED = {
    "ACCOUNTS": "accounts in the organization",
    "ORGANIZATIONAL_UNITS": "organizational units in the organization",
    "POLICIES": "service control policies in the organization",
    "POLICIES_PER_TARGET": "service control policies on one target",
}


@pytest.mark.parametrize("code", LIMITED)
async def test_of_requests_that_meet_none_exceeds_the_limit(ask: Ask, kind: str, code: str) -> None:
    requests = await arrange(ask, kind, code)
    used = (await quotas(ask))[code]["used"]
    await set_quota(ask, code, used + 3)
    payloads = await asyncio.gather(*(run(ask, mutation, **values) for mutation, values in requests))
    assert (await quotas(ask))[code]["used"] == used + 3
    refused = [payload["userErrors"] for payload in payloads if payload["userErrors"]]
    assert len(refused) == 5
    for [error] in refused:
        assert error["code"] == "QUOTA_EXCEEDED"
        assert error["field"] == (["target"] if code == "POLICIES_PER_TARGET" else None)
        assert f"at most {used + 3} {LIMITED[code]}" in error["message"]
        assert f"{used + 3} are in use" in error["message"]


@pytest.mark.parametrize("code", LIMITED)
async def test_what_is_refused_changes_nothing_and_a_higher_limit_lets_it_in(
    ask: Ask, kind: str, owner: Owner, tenant: Tenant, code: str
) -> None:
    mutation, values = (await arrange(ask, kind, code))[0]
    used = (await quotas(ask))[code]["used"]
    await set_quota(ask, code, used)
    before = await contents(owner, tenant)
    all_used = await quotas(ask)
    payload = await run(ask, mutation, **values)
    assert [error["code"] for error in payload.pop("userErrors")] == ["QUOTA_EXCEEDED"]
    assert [*payload.values()] == [None]
    assert await contents(owner, tenant) == before
    assert await quotas(ask) == all_used
    await set_quota(ask, code, used + 1)
    await done(ask, mutation, **values)


async def test_a_target_that_is_full_does_not_keep_another_from_policies(ask: Ask, kind: str) -> None:
    first, second, third = [await policy(ask, name) for name in ("One", "Two", "Three")]
    await set_quota(ask, "POLICIES_PER_TARGET", 2)
    await done(ask, "attachPolicy", policyId=first, target={"accountTypeId": kind})
    payload = await run(ask, "attachPolicy", policyId=second, target={"accountTypeId": kind})
    assert [error["code"] for error in payload["userErrors"]] == ["QUOTA_EXCEEDED"]
    await done(ask, "attachPolicy", policyId=second, target={"tenancy": True})
    payload = await run(ask, "attachPolicy", policyId=third, target={"tenancy": True})
    assert [error["code"] for error in payload["userErrors"]] == ["QUOTA_EXCEEDED"]
    # A policy that is being removed is there until AWS has removed it, and may stay after all.
    detach = """mutation($input: DetachPolicyInput!) { detachPolicy(input: $input) { userErrors { code } } }"""
    await ask(detach, input={"policyId": first, "target": {"accountTypeId": kind}})
    payload = await run(ask, "attachPolicy", policyId=second, target={"accountTypeId": kind})
    assert [error["code"] for error in payload["userErrors"]] == ["QUOTA_EXCEEDED"]
    await done(ask, "attachPolicy", policyId=first, target={"accountTypeId": kind})


async def test_the_preview_and_the_check_of_a_document_know_the_limits(ask: Ask, kind: str) -> None:
    await set_quota(ask, "POLICIES_PER_TARGET", 3)
    preview = """query($document: JSON!, $kind: ID!) {
      previewPolicy(document: $document, target: {accountTypeId: $kind}) { preview { quota { code limit used } } }
    }"""
    shown = (await ask(preview, document=DOCUMENT, kind=kind))["previewPolicy"]["preview"]["quota"]
    assert shown == {"code": "POLICIES_PER_TARGET", "limit": 3, "used": 2}
    await set_quota(ask, "POLICY_SIZE", 102)
    payload = await run(ask, "createPolicy", name="Long", description="", document=DOCUMENT)
    [error] = payload["userErrors"]
    assert error["code"] == "INVALID_DOCUMENT"
    assert "103" in error["message"]
    assert "102" in error["message"]


async def test_the_same_key_gets_its_account_also_when_there_may_be_no_more(ask: Ask, kind: str) -> None:
    values = {"name": "Once", "accountTypeId": kind, "idempotencyKey": "k"}
    account = await done(ask, "createAccount", **values)
    await set_quota(ask, "ACCOUNTS", 1)
    assert await done(ask, "createAccount", **values) == account


@pytest.mark.parametrize(("limit", "waits"), [(1_000, False), (100, True)])
async def test_requests_wait_for_each_other_near_the_limit_alone(
    ask: Ask, kind: str, tenant: Tenant, owner: Owner, engine: AsyncEngine, limit: int, waits: bool
) -> None:
    other = await done(ask, "createAccountType", name="Other")
    await set_quota(ask, "ACCOUNTS", limit)

    async def create(name: str, type_: str, until_over: asyncio.Event | None = None) -> None:
        async with transaction(engine, tenant.tenancy_id) as session:
            await create_account(session, SYSTEM, tenant.tenancy_id, name=name, account_type_id=decode(type_, "typ"))
            if until_over is not None:
                begun.set()
                await until_over.wait()

    begun, over = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(create("First", kind, over))
        await begun.wait()
        second = group.create_task(create("Second", other))

        async def met() -> bool:
            return second.done() or await is_waited_for(owner)

        await until(met)
        assert second.done() is not waits
        over.set()
    assert (await quotas(ask))["ACCOUNTS"]["used"] == 3
