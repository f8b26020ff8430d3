"""Creating, changing and retrying an account: what is accepted, what is refused, and that a refusal changes nothing."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.assurance.service import fail_stage, hold
from server.database import transaction
from server.graphql.ids import decode, encode
from server.identity.models import Role
from server.identity.service import create_token
from server.leases import StageError, StageErrorClass
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import NewTenant, Owner, Tenant

CREATE = """
mutation($input: CreateAccountInput!) {
  createAccount(input: $input) {
    account {
      id name alias email status awsAccountId accountType { name } tags { key value }
      createdBy { kind name }
      setup { kind status stages { name status attempts } }
    }
    userErrors { code message field }
  }
}
"""
UPDATE = """
mutation($input: UpdateAccountInput!) {
  updateAccount(input: $input) {
    account { id name alias email accountType { id } tags { key value } setup { kind status } }
    userErrors { code message field }
  }
}
"""
RETRY = """
mutation($input: RetryAccountSetupInput!) {
  retryAccountSetup(input: $input) {
    account { id status setup { status stages { name status } } }
    userErrors { code message field }
  }
}
"""
CREATE_TYPE = """
mutation($input: CreateAccountTypeInput!) {
  createAccountType(input: $input) {
    accountType { id name foundation organizationalUnitId }
    userErrors { code message field }
  }
}
"""
# Everything of a tenancy that a request could have changed.
TABLES = ("account", "account_type", "tag", "setup", "stage", "event", "outbox", "create_intent")


@pytest.fixture
async def account_type(ask: Ask) -> str:
    created = (await ask(CREATE_TYPE, input={"name": "Development"}))["createAccountType"]
    assert created["userErrors"] == []
    assert created["accountType"]["foundation"] is False
    return str(created["accountType"]["id"])


async def contents(owner: Owner, tenant: Tenant) -> dict[str, list[str]]:
    return {
        table: [
            row[0]
            for row in await owner.fetch(
                f"SELECT t::text FROM {table} t WHERE tenancy_id = $1 ORDER BY 1", tenant.tenancy_id
            )
        ]
        for table in TABLES
        # The relay empties it at any moment.
        if table != "outbox"
    }


async def created(ask: Ask, account_type: str, **values: object) -> dict[str, Any]:
    payload = (await ask(CREATE, input={"accountTypeId": account_type, **values}))["createAccount"]
    assert payload["userErrors"] == []
    account: dict[str, Any] = payload["account"]
    return account


async def test_creating_writes_account_setup_stages_and_event_at_once(ask: Ask, account_type: str) -> None:
    account = await created(
        ask, account_type, name="Payments (dev)", tags=[{"key": "team", "value": "pay"}, {"key": "env", "value": ""}]
    )
    assert account["status"] == "INITIALIZING"
    assert account["awsAccountId"] is None
    assert account["alias"] == "payments-dev"
    assert account["email"] == f"aws+{account['id'].removeprefix('acc_')}@example.com"
    assert account["tags"] == [{"key": "env", "value": ""}, {"key": "team", "value": "pay"}]
    assert account["createdBy"] == {"kind": "API_TOKEN", "name": "admin"}
    assert account["setup"]["kind"] == "CREATE"
    assert account["setup"]["status"] == "PENDING"
    names = [stage["name"] for stage in account["setup"]["stages"]]
    assert names[0] == "create_account"
    assert {stage["status"] for stage in account["setup"]["stages"]} == {"PENDING"}


REFUSED: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"name": ""}, "VALIDATION", ["name"]),
    ({"name": "   "}, "VALIDATION", ["name"]),
    ({"name": "a" * 51}, "VALIDATION", ["name"]),
    ({"name": "a<b"}, "VALIDATION", ["name"]),
    ({"name": "caf\u00e9"}, "VALIDATION", ["name"]),
    ({"name": "tab\there"}, "VALIDATION", ["name"]),
    ({"name": "nul\u0000"}, "VALIDATION", ["name"]),
    ({"name": "line\n"}, "VALIDATION", ["name"]),
    ({"name": "TAKEN"}, "NAME_IN_USE", ["name"]),
    ({"alias": "ab"}, "VALIDATION", ["alias"]),
    ({"alias": "Upper"}, "VALIDATION", ["alias"]),
    ({"alias": "-abc"}, "VALIDATION", ["alias"]),
    ({"alias": "abc-"}, "VALIDATION", ["alias"]),
    ({"alias": "ab--c"}, "VALIDATION", ["alias"]),
    ({"alias": "a" * 64}, "VALIDATION", ["alias"]),
    ({"alias": "123456789012"}, "VALIDATION", ["alias"]),
    ({"alias": "taken"}, "ALIAS_IN_USE", ["alias"]),
    ({"email": "nobody"}, "VALIDATION", ["email"]),
    ({"email": "a@b.c"}, "VALIDATION", ["email"]),
    ({"email": "two@at@example.com x"}, "VALIDATION", ["email"]),
    ({"email": "a" * 53 + "@example.com"}, "VALIDATION", ["email"]),
    ({"email": "Taken@Example.com"}, "EMAIL_IN_USE", ["email"]),
    ({"accountTypeId": "nonsense"}, "VALIDATION", ["accountTypeId"]),
    ({"accountTypeId": encode("acc", UUID(int=1))}, "VALIDATION", ["accountTypeId"]),
    ({"accountTypeId": encode("typ", UUID(int=1))}, "NOT_FOUND", ["accountTypeId"]),
    ({"tags": [{"key": f"k{n}", "value": "v"} for n in range(51)]}, "VALIDATION", ["tags"]),
    ({"tags": [{"key": "AWS:team", "value": "v"}]}, "VALIDATION", ["tags", "0", "key"]),
    ({"tags": [{"key": "k", "value": "v" * 257}]}, "VALIDATION", ["tags", "0", "value"]),
    ({"tags": [{"key": "k", "value": "a,b"}]}, "VALIDATION", ["tags", "0", "value"]),
    ({"tags": [{"key": "k", "value": "caf\u00e9"}]}, "VALIDATION", ["tags", "0", "value"]),
    ({"tags": [{"key": "", "value": "v"}]}, "VALIDATION", ["tags", "0", "key"]),
    ({"tags": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]}, "VALIDATION", ["tags", "1", "key"]),
]


@pytest.mark.parametrize(("wrong", "code", "field"), REFUSED, ids=lambda value: str(value)[:40])
async def test_a_wrong_input_is_refused_and_changes_nothing(
    ask: Ask, account_type: str, owner: Owner, tenant: Tenant, wrong: Mapping[str, Any], code: str, field: list[str]
) -> None:
    await created(ask, account_type, name="taken", email="taken@example.com")
    before = await contents(owner, tenant)
    answer = (await ask(CREATE, input={"name": "Wanted", "accountTypeId": account_type, **wrong}))["createAccount"]
    assert answer["account"] is None
    assert [(error["code"], error["field"]) for error in answer["userErrors"]] == [(code, field)]
    assert answer["userErrors"][0]["message"]
    assert await contents(owner, tenant) == before


async def test_every_fault_is_told_at_once(ask: Ask, account_type: str) -> None:
    wrong = {"name": "", "alias": "A", "email": "x", "tags": [{"key": "", "value": "\u00e9"}]}
    answer = (await ask(CREATE, input={"accountTypeId": account_type, **wrong}))["createAccount"]
    assert [error["field"] for error in answer["userErrors"]] == [
        ["name"],
        ["alias"],
        ["email"],
        ["tags", "0", "key"],
        ["tags", "0", "value"],
    ]


async def test_another_tenancy_is_out_of_reach(
    ask: Ask, account_type: str, new_tenant: NewTenant, server: httpx.AsyncClient
) -> None:
    other = await new_tenant()
    body = {"query": CREATE, "variables": {"input": {"name": "Mine", "accountTypeId": account_type}}}
    answer = (await server.post("/graphql", json=body, headers=other.headers)).json()
    assert answer["data"]["createAccount"]["userErrors"][0]["code"] == "NOT_FOUND"
    update = (await ask(UPDATE, input={"accountId": encode("acc", other.account_id), "name": "x"}))["updateAccount"]
    assert [(error["code"], error["field"]) for error in update["userErrors"]] == [("NOT_FOUND", ["accountId"])]


async def test_of_many_requests_for_one_name_one_is_served(ask: Ask, account_type: str) -> None:
    answers = await asyncio.gather(
        *(ask(CREATE, input={"name": "Race", "accountTypeId": account_type}) for _ in range(8))
    )
    errors = [error["code"] for answer in answers for error in answer["createAccount"]["userErrors"]]
    assert len(errors) == 7
    assert set(errors) == {"NAME_IN_USE"}


async def test_an_alias_is_derived_that_aws_accepts(ask: Ask, account_type: str) -> None:
    short = await created(ask, account_type, name="A!")
    assert short["alias"].startswith("a-")
    assert len(short["alias"]) == 8
    nothing = await created(ask, account_type, name="!!!")
    assert nothing["alias"].startswith("account-")
    await created(ask, account_type, name="One Two")
    second = await created(ask, account_type, name="One-Two")
    assert second["alias"].startswith("one-two-")
    digits = await created(ask, account_type, name="123456789012")
    assert digits["alias"].startswith("123456789012-")


async def test_a_reader_may_not_write(
    server: httpx.AsyncClient, tenant: Tenant, account_type: str, worker_engine: AsyncEngine
) -> None:
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "reader", Role.READONLY)
    body = {"query": CREATE, "variables": {"input": {"name": "Mine", "accountTypeId": account_type}}}
    answer = (await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})).json()
    payload = answer["data"]["createAccount"]
    assert payload["account"] is None
    assert [error["code"] for error in payload["userErrors"]] == ["FORBIDDEN"]
    assert "OPERATOR" in payload["userErrors"][0]["message"]


async def test_only_an_admin_changes_who_has_access_to_an_account_by_moving_it(
    server: httpx.AsyncClient, ask: Ask, tenant: Tenant, account_type: str, worker_engine: AsyncEngine
) -> None:
    account = (await created(ask, account_type, name="Stays"))["id"]
    other = (await ask(CREATE_TYPE, input={"name": "Elsewhere"}))["createAccountType"]["accountType"]["id"]
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "operator", Role.OPERATOR)

    async def asked(mutation: str, input: str, payload: str) -> Any:
        body = {
            "query": f"mutation {{ {mutation}(input: {input}) {{ {payload} userErrors {{ code field message }} }} }}"
        }
        answer = await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})
        return answer.json()["data"][mutation]

    moved = f'{{accountId: "{account}", name: "Goes", accountTypeId: "{other}"}}'
    [error] = (await asked("updateAccount", moved, "account { id }"))["userErrors"]
    assert (error["code"], error["field"]) == ("FORBIDDEN", ["accountTypeId"])
    assert "ADMIN" in error["message"]
    batch = f'{{items: [{{key: "1", accountId: "{account}", accountTypeId: "{other}"}}]}}'
    assert [each["code"] for each in (await asked("moveAccounts", batch, "results { key }"))["userErrors"]] == [
        "FORBIDDEN"
    ]
    # Its own type, as a form sends it back, moves nothing.
    same = f'{{accountId: "{account}", tags: [{{key: "a", value: "b"}}], accountTypeId: "{account_type}"}}'
    payload = await asked("updateAccount", same, "account { name tags { key } }")
    assert payload["account"] == {"name": "Stays", "tags": [{"key": "a"}]}


async def fail(worker_engine: AsyncEngine, owner: Owner, account_id: str, position: int = 1) -> None:
    """The setup of the account fails at a stage, as a worker would record it."""
    setup_id = await owner.fetchval("SELECT id FROM setup WHERE account_id = $1", decode(account_id, "acc"))
    async with transaction(worker_engine) as session:
        setup = await hold(session, setup_id, 0)
        error = StageError("EMAIL_ALREADY_EXISTS", "Choose another.", StageErrorClass.NEEDS_PERSON)
        await fail_stage(session, setup, position, error)


async def test_a_running_setup_refuses_changes_but_tags(ask: Ask, account_type: str, owner: Owner) -> None:
    account = await created(ask, account_type, name="Busy", tags=[{"key": "a", "value": "1"}])
    for change in ({"name": "Other"}, {"alias": "other-alias"}):
        answer = (await ask(UPDATE, input={"accountId": account["id"], **change}))["updateAccount"]
        assert [error["code"] for error in answer["userErrors"]] == ["SETUP_IN_PROGRESS"]
    retried = (await ask(RETRY, input={"accountId": account["id"]}))["retryAccountSetup"]
    assert [error["code"] for error in retried["userErrors"]] == ["SETUP_IN_PROGRESS"]
    answer = (await ask(UPDATE, input={"accountId": account["id"], "tags": [{"key": "b", "value": "2"}]}))[
        "updateAccount"
    ]
    assert answer["userErrors"] == []
    assert answer["account"]["tags"] == [{"key": "b", "value": "2"}]
    assert answer["account"]["name"] == "Busy"


async def test_a_refused_account_is_corrected_and_retried(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine
) -> None:
    account = await created(ask, account_type, name="Corrected", email="used@example.com")
    await fail(worker_engine, owner, account["id"])
    corrected = (await ask(UPDATE, input={"accountId": account["id"], "email": "free@example.com"}))["updateAccount"]
    assert corrected["userErrors"] == []
    assert corrected["account"]["email"] == "free@example.com"
    # Nothing to bring in line: AWS does not have the account yet.
    assert corrected["account"]["setup"] == {"kind": "CREATE", "status": "FAILED"}
    for stage, code in (("no_such_stage", "NOT_FOUND"), ("iam_baseline", "NOTHING_TO_RETRY")):
        answer = (await ask(RETRY, input={"accountId": account["id"], "stage": stage}))["retryAccountSetup"]
        assert [(error["code"], error["field"]) for error in answer["userErrors"]] == [(code, ["stage"])]
    retried = (await ask(RETRY, input={"accountId": account["id"], "stage": "create_account"}))["retryAccountSetup"]
    assert retried["userErrors"] == []
    assert retried["account"]["status"] == "INITIALIZING"
    assert retried["account"]["setup"]["status"] == "PENDING"
    assert {stage["status"] for stage in retried["account"]["setup"]["stages"]} == {"PENDING"}


async def activate(owner: Owner, account_id: str) -> None:
    """The account as a finished setup leaves it."""
    key = decode(account_id, "acc")
    await owner.execute("UPDATE setup SET status = 'COMPLETED', finished_at = now() WHERE account_id = $1", key)
    await owner.execute("UPDATE account SET status = 'ACTIVE', aws_account_id = '111122223333' WHERE id = $1", key)


async def test_a_new_name_or_type_begins_a_setup_that_brings_aws_in_line(
    ask: Ask, account_type: str, owner: Owner
) -> None:
    account = await created(ask, account_type, name="Old name")
    await activate(owner, account["id"])
    same = (await ask(UPDATE, input={"accountId": account["id"], "name": "Old name"}))["updateAccount"]
    assert same["account"]["setup"] == {"kind": "CREATE", "status": "COMPLETED"}
    renamed = (await ask(UPDATE, input={"accountId": account["id"], "name": "New name"}))["updateAccount"]
    assert renamed["userErrors"] == []
    assert renamed["account"]["setup"] == {"kind": "REASSURE", "status": "PENDING"}
    assert renamed["account"]["alias"] == "new-name"


async def test_what_may_not_change_is_protected(ask: Ask, account_type: str, owner: Owner, tenant: Tenant) -> None:
    account = await created(ask, account_type, name="Fixed")
    await activate(owner, account["id"])
    foundation = await owner.fetchval(
        "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'Foundation', true) RETURNING id",
        tenant.tenancy_id,
    )
    before = await contents(owner, tenant)
    for change, field in (
        ({"email": "another@example.com"}, "email"),
        ({"accountTypeId": encode("typ", foundation)}, "accountTypeId"),
    ):
        answer = (await ask(UPDATE, input={"accountId": account["id"], **change}))["updateAccount"]
        assert [(error["code"], error["field"]) for error in answer["userErrors"]] == [("PROTECTED", [field])]
    assert await contents(owner, tenant) == before


@pytest.mark.parametrize(
    ("name", "code"),
    [("", "VALIDATION"), ("a", "VALIDATION"), ("a" * 65, "VALIDATION"), ("a<b", "VALIDATION"), ("  ", "VALIDATION")],
)
async def test_a_wrong_type_name_is_refused(ask: Ask, name: str, code: str) -> None:
    answer = (await ask(CREATE_TYPE, input={"name": name}))["createAccountType"]
    assert answer["accountType"] is None
    assert [(error["code"], error["field"]) for error in answer["userErrors"]] == [(code, ["name"])]


async def test_a_type_name_is_used_once_whatever_the_case(ask: Ask, account_type: str) -> None:
    answer = (await ask(CREATE_TYPE, input={"name": "DEVELOPMENT"}))["createAccountType"]
    assert [(error["code"], error["field"]) for error in answer["userErrors"]] == [("NAME_IN_USE", ["name"])]
