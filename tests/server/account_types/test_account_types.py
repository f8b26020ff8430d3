"""Account types renamed and deleted: what is accepted, what is refused, and that a refusal changes nothing."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.graphql.ids import decode, encode
from server.identity.models import Role
from server.identity.service import create_token
from tests.server.access.conftest import Done, Run, document
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import NewTenant, Owner, Tenant

TABLES = ("account_type", "account", "access_grant", "account_access", "policy_attachment")
BY_ID = "query($id: ID!) { accountType(by: {id: $id}) { name state } }"
DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:DeleteBucket", "Resource": "*"}]}
CREATE_POLICY = "mutation($input: CreatePolicyInput!) { createPolicy(input: $input) { policy { id } } }"
ATTACH = """mutation($input: AttachPolicyInput!) { attachPolicy(input: $input) {
    attachment { state } userErrors { code field } } }"""


async def contents(owner: Owner, tenant: Tenant) -> list[str]:
    query = "SELECT t::text FROM {} t WHERE tenancy_id = $1 ORDER BY 1"
    return [row[0] for table in TABLES for row in await owner.fetch(query.format(table), tenant.tenancy_id)]


async def set_state(owner: Owner, type_id: str, state: str, **values: object) -> None:
    columns = "".join(f", {name} = ${number}" for number, name in enumerate(values, start=3))
    await owner.execute(
        f"UPDATE account_type SET state = $1, next_attempt_at = NULL{columns} WHERE id = $2",
        *(state, decode(type_id, "typ"), *values.values()),
    )


def refusal(payload: dict[str, Any]) -> tuple[str, list[str]]:
    [error] = payload["userErrors"]
    assert {value for key, value in payload.items() if key != "userErrors"} == {None}
    return error["code"], error["field"]


@pytest.fixture
async def kind(done: Done) -> str:
    return str((await done("createAccountType", name="Development"))["id"])


async def test_a_type_is_renamed_and_due(done: Done, owner: Owner, kind: str) -> None:
    await set_state(owner, kind, "ACTIVE", aws_name="Development", organizational_unit_id="ou-1")
    same = await done("updateAccountType", accountTypeId=kind, name="Development")
    assert (same["name"], same["nextAttemptAt"]) == ("Development", None)
    renamed = await done("updateAccountType", accountTypeId=kind, name="development now +1")
    assert renamed["nextAttemptAt"] is not None
    assert (renamed["name"], renamed["organizationalUnitName"]) == ("development now +1", "Development")
    assert (await done("updateAccountType", accountTypeId=kind, name="DEVELOPMENT NOW +1"))["state"] == "ACTIVE"
    assert (await done("createAccountType", name="Development"))["id"] != kind


async def test_the_name_that_it_has_tries_again_what_aws_refused(done: Done, owner: Owner, kind: str) -> None:
    error = {"error_code": "NAME_TAKEN", "error_message": "Why.", "error_class": "NEEDS_PERSON"}
    await set_state(owner, kind, "ACTIVE", **error)
    renamed = await done("updateAccountType", accountTypeId=kind, name="Development")
    assert renamed["error"] is None
    assert renamed["nextAttemptAt"] is not None


async def test_an_empty_type_is_deleted_with_its_grants(
    done: Done, run: Run, ask: Ask, owner: Owner, tenant: Tenant, kind: str
) -> None:
    group = (await done("createGroup", name="Platform"))["id"]
    await done("setAccountTypeAccess", accountTypeId=kind, grants=[{"groupId": group, "role": "ADMIN"}])
    account = await done("createAccount", name="Given up", accountTypeId=kind)
    assert refusal(await run("deleteAccountType", accountTypeId=kind)) == ("TYPE_IN_USE", ["accountTypeId"])
    # A cancelled account is none, and keeps its type.
    await done("cancelAccountSetup", setupId=account["setup"]["id"])
    for _ in range(2):
        deleted = await done("deleteAccountType", accountTypeId=kind)
        assert (deleted["state"], deleted["access"]) == ("DELETING", [])
        assert deleted["nextAttemptAt"] is not None
    assert await owner.fetchval("SELECT count(*) FROM access_grant WHERE tenancy_id = $1", tenant.tenancy_id) == 0
    await done("deleteGroup", groupId=group)

    found = await ask("{ accountTypes { totalCount nodes { name state } } }")
    listed = {"name": "Development", "state": "DELETING"}
    assert found["accountTypes"] == {"totalCount": 2, "nodes": [listed, {"name": "General", "state": "ACTIVE"}]}
    assert refusal(await run("createAccountType", name="development")) == ("NAME_IN_USE", ["name"])
    await set_state(owner, kind, "DELETED")
    found = await ask("""{ accountTypes { totalCount } accountType(by: {name: "Development"}) { id } }""")
    assert found == {"accountTypes": {"totalCount": 1}, "accountType": None}
    assert await ask(BY_ID, id=kind) == {"accountType": {"name": "Development", "state": "DELETED"}}
    read = await ask("query($id: ID!) { account(by: {id: $id}) { accountType { state } } }", id=account["id"])
    assert read == {"account": {"accountType": {"state": "DELETED"}}}
    before = await contents(owner, tenant)
    assert (await done("deleteAccountType", accountTypeId=kind))["state"] == "DELETED"
    assert await contents(owner, tenant) == before
    # The name is free again.
    assert (await done("createAccountType", name="Development"))["id"] != kind


async def test_the_number_of_accounts_in_the_way_is_told(done: Done, run: Run, kind: str) -> None:
    for number, expected in ((1, "has 1 account; move it"), (2, "has 2 accounts; move them")):
        await done("createAccount", name=f"In the way {number}", accountTypeId=kind)
        payload = await run("deleteAccountType", accountTypeId=kind)
        assert expected in payload["userErrors"][0]["message"]


@pytest.mark.parametrize("state", ["DELETING", "DELETED"])
async def test_nothing_comes_to_a_type_that_goes(
    done: Done, run: Run, ask: Ask, owner: Owner, tenant: Tenant, kind: str, state: str
) -> None:
    group = (await done("createGroup", name="Platform"))["id"]
    policy = (await ask(CREATE_POLICY, input={"name": "P", "description": "", "document": DOCUMENT}))["createPolicy"]
    await set_state(owner, kind, state)
    before = await contents(owner, tenant)
    grants = [{"groupId": group, "role": "ADMIN"}]
    account = encode("acc", tenant.account_id)
    refused = [
        await run("createAccount", name="Too late", accountTypeId=kind),
        await run("updateAccount", accountId=account, accountTypeId=kind),
        await run("updateAccountType", accountTypeId=kind, name="Renamed"),
        await run("setAccountTypeAccess", accountTypeId=kind, grants=grants),
    ]
    assert [refusal(payload) for payload in refused] == [("TYPE_DELETED", ["accountTypeId"])] * 4
    attach = {"policyId": policy["policy"]["id"], "target": {"accountTypeId": kind}}
    assert refusal((await ask(ATTACH, input=attach))["attachPolicy"]) == ("TYPE_DELETED", ["target", "accountTypeId"])
    assert await contents(owner, tenant) == before


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("updateAccountType", {"name": "a"}, "VALIDATION", "name"),
    ("updateAccountType", {"name": "a" * 65}, "VALIDATION", "name"),
    ("updateAccountType", {"name": " a "}, "VALIDATION", "name"),
    ("updateAccountType", {"name": "caf\u00e9"}, "VALIDATION", "name"),
    ("updateAccountType", {"name": "nul\u0000"}, "VALIDATION", "name"),
    ("updateAccountType", {"name": "GENERAL"}, "NAME_IN_USE", "name"),
    ("updateAccountType", {"name": "xx", "accountTypeId": encode("typ", UUID(int=1))}, "NOT_FOUND", "accountTypeId"),
    ("updateAccountType", {"name": "xx", "accountTypeId": "nonsense"}, "VALIDATION", "accountTypeId"),
    ("updateAccountType", {"name": "xx", "accountTypeId": "foundation"}, "PROTECTED", "accountTypeId"),
    ("deleteAccountType", {"accountTypeId": encode("typ", UUID(int=1))}, "NOT_FOUND", "accountTypeId"),
    ("deleteAccountType", {"accountTypeId": encode("acc", UUID(int=1))}, "VALIDATION", "accountTypeId"),
    ("deleteAccountType", {"accountTypeId": "foundation"}, "PROTECTED", "accountTypeId"),
]


@pytest.mark.parametrize(("mutation", "values", "code", "field"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_is_wrong_is_refused_and_changes_nothing(
    run: Run,
    owner: Owner,
    tenant: Tenant,
    kind: str,
    mutation: str,
    values: dict[str, Any],
    code: str,
    field: str,
) -> None:
    foundation = await owner.fetchval(
        "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'Foundation', true) RETURNING id",
        tenant.tenancy_id,
    )
    values = {"accountTypeId": kind, **values}
    if values["accountTypeId"] == "foundation":
        values["accountTypeId"] = encode("typ", foundation)
    before = await contents(owner, tenant)
    assert refusal(await run(mutation, **values)) == (code, [field])
    assert await contents(owner, tenant) == before


async def test_of_many_requests_for_one_name_one_is_served(done: Done, run: Run) -> None:
    types = [(await done("createAccountType", name=f"Type {number}"))["id"] for number in range(6)]
    payloads = await asyncio.gather(*(run("updateAccountType", accountTypeId=each, name="One name") for each in types))
    assert [error["code"] for payload in payloads for error in payload["userErrors"]] == ["NAME_IN_USE"] * 5


async def test_no_account_comes_into_a_type_while_it_is_deleted(
    done: Done, run: Run, owner: Owner, tenant: Tenant
) -> None:
    """Whoever is first is served: a type that goes has no account, and one that has an account stays."""
    group = (await done("createGroup", name="Racing"))["id"]
    account = encode("acc", tenant.account_id)
    for number in range(8):
        kind = (await done("createAccountType", name=f"Race {number}"))["id"]
        grants = [{"groupId": group, "role": "ADMIN"}]
        answers = await asyncio.gather(
            run("createAccount", name=f"Race {number}", accountTypeId=kind),
            run("deleteAccountType", accountTypeId=kind),
            run("updateAccount", accountId=account, accountTypeId=kind),
            run("setAccountTypeAccess", accountTypeId=kind, grants=grants),
            run("createAccount", name=f"Race {number} too", accountTypeId=kind),
        )
        outcomes = [[error["code"] for error in answer["userErrors"]] for answer in answers]
        joined = [outcomes[place] for place in (0, 2, 4)]
        key = decode(kind, "typ")
        state = await owner.fetchval("SELECT state FROM account_type WHERE id = $1", key)
        there = await owner.fetchval("SELECT count(*) FROM account WHERE account_type_id = $1", key)
        granted = await owner.fetchval("SELECT count(*) FROM access_grant WHERE account_type_id = $1", key)
        if outcomes[1] == []:
            assert (state, there, granted, joined) == ("DELETING", 0, 0, [["TYPE_DELETED"]] * 3)
        else:
            assert outcomes == [[], ["TYPE_IN_USE"], [], [], []]
            assert (state, there, granted) == ("ACTIVE", 3, 1)


async def test_it_takes_a_role_and_reaches_no_other_tenancy(
    server: httpx.AsyncClient, tenant: Tenant, new_tenant: NewTenant, worker_engine: AsyncEngine, kind: str
) -> None:
    async def token(role: Role) -> dict[str, str]:
        async with transaction(worker_engine) as session:
            _, secret = await create_token(session, tenant.tenancy_id, role.lower(), role)
        return {"authorization": f"Bearer {secret}"}

    theirs = (await new_tenant()).headers
    operator, user = await token(Role.OPERATOR), await token(Role.USER)
    rename, delete = {"accountTypeId": kind, "name": "Theirs"}, {"accountTypeId": kind}
    for mutation, values, headers, code in (
        ("updateAccountType", rename, user, "FORBIDDEN"),
        ("updateAccountType", rename, theirs, "NOT_FOUND"),
        ("deleteAccountType", delete, operator, "FORBIDDEN"),
        ("deleteAccountType", delete, theirs, "NOT_FOUND"),
    ):
        body = {"query": document(mutation), "variables": {"input": values}}
        answer = (await server.post("/graphql", json=body, headers=headers)).json()
        assert [error["code"] for error in answer["data"][mutation]["userErrors"]] == [code]
