"""Roles of groups on account types: what is accepted and refused, and what follows in the accounts of the type."""

import asyncio
import time
from typing import Any
from uuid import UUID

import pytest

from server.graphql.ids import decode, encode
from tests.server.access.conftest import Done, Run
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import Owner, Tenant

ARN = "arn:aws:iam::aws:policy"
TABLES = ("access_grant", "account_access", "account")
ACCESS = """query($by: AccountBy!) { account(by: $by) { access {
    group { name } role state reason applyToNewAccounts roleName managedPolicyArn
} } }"""


@pytest.fixture
async def kind(done: Done) -> str:
    return str((await done("createAccountType", name="Development"))["id"])


@pytest.fixture
async def group(done: Done) -> str:
    return str((await done("createGroup", name="Platform"))["id"])


async def contents(owner: Owner, tenant: Tenant) -> list[str]:
    query = "SELECT t::text FROM {} t WHERE tenancy_id = $1 ORDER BY 1"
    return [row[0] for table in TABLES for row in await owner.fetch(query.format(table), tenant.tenancy_id)]


async def in_aws(owner: Owner, account: str, number: str) -> None:
    await owner.execute(
        "UPDATE account SET aws_account_id = $1, status = 'ACTIVE' WHERE id = $2", number, decode(account, "acc")
    )


async def test_a_group_gets_several_roles_and_loses_them(
    done: Done, run: Run, ask: Ask, owner: Owner, kind: str, group: str
) -> None:
    account = await done("createAccount", name="There", accountTypeId=kind)
    await in_aws(owner, account["id"], "111122223333")
    grants = [
        {"groupId": group, "role": "READONLY", "applyToNewAccounts": False},
        {"groupId": group, "role": "ADMIN", "managedPolicyArn": "arn:aws:iam::{account}:policy/path/Own"},
        {"groupId": group, "role": "DEVELOPER"},
    ]
    shown = (await done("setAccountTypeAccess", accountTypeId=kind, grants=grants))["access"]
    slug = f"platform-{group[-8:]}"
    granted = "Granted on the account type Development"
    common = {"group": {"name": "Platform"}, "state": "PENDING", "error": None, "accountType": {"name": "Development"}}
    assert shown == [
        {
            **common,
            "role": role,
            "managedPolicyArn": arn,
            "roleName": f"freehold-{role.lower()}-{slug}",
            "applyToNewAccounts": later,
            "reason": reason,
        }
        for role, arn, later, reason in (
            ("ADMIN", "arn:aws:iam::{account}:policy/path/Own", True, f"{granted} and to accounts that join it."),
            ("DEVELOPER", f"{ARN}/job-function/SystemAdministrator", True, f"{granted} and to accounts that join it."),
            (
                "READONLY",
                f"{ARN}/ReadOnlyAccess",
                False,
                f"{granted} to the accounts of then, not to those that join it.",
            ),
        )
    ]
    there = (await ask(ACCESS, by={"name": "There"}))["account"]["access"]
    assert {each["reason"] for each in there} == {f"{granted} when the account was in it."}
    assert [each["role"] for each in there] == ["ADMIN", "DEVELOPER", "READONLY"]
    due = "SELECT governance_due_at FROM account WHERE id = $1", decode(account["id"], "acc")
    first = await owner.fetchval(*due)
    assert first is not None
    # Nothing differs, so nothing is due.
    await done("setAccountTypeAccess", accountTypeId=kind, grants=grants)
    assert await owner.fetchval(*due) == first
    refused = (await run("deleteGroup", groupId=group))["userErrors"]
    assert [error["code"] for error in refused] == ["GROUP_IN_USE"]
    assert "members (0) or roles on account types (3)" in refused[0]["message"]
    left = await done("setAccountTypeAccess", accountTypeId=kind, revoke=[{"groupId": group, "role": "ADMIN"}])
    assert [each["role"] for each in left["access"]] == ["DEVELOPER", "READONLY"]
    assert (await done("setAccountTypeAccess", accountTypeId=kind, revoke=[{"groupId": group}]))["access"] == []
    there = (await ask(ACCESS, by={"name": "There"}))["account"]["access"]
    assert {(each["state"], each["reason"], each["applyToNewAccounts"]) for each in there} == {
        ("REMOVING", "Was revoked on the account type Development; the role is being removed.", None)
    }
    refused = (await run("deleteGroup", groupId=group))["userErrors"]
    assert "3 IAM roles" in refused[0]["message"]
    await owner.execute("DELETE FROM account_access WHERE group_id = $1", decode(group, "grp"))
    assert await done("deleteGroup", groupId=group) == group


async def test_an_account_that_joins_gets_what_is_for_new_accounts_and_one_that_is_cancelled_nothing(
    done: Done, ask: Ask, kind: str, group: str
) -> None:
    grants = [{"groupId": group, "role": "ADMIN"}, {"groupId": group, "role": "READONLY", "applyToNewAccounts": False}]
    await done("setAccountTypeAccess", accountTypeId=kind, grants=grants)
    account = await done("createAccount", name="Later", accountTypeId=kind)
    reason = "Granted on the account type Development, which the account joined later."
    assert account["access"] == [{"role": "ADMIN", "reason": reason}]
    cancelled = await done("cancelAccountSetup", setupId=account["setup"]["id"])
    assert cancelled == {"status": "CANCELLED", "access": []}
    await done("setAccountTypeAccess", accountTypeId=kind, grants=grants)
    assert (await ask(ACCESS, by={"id": account["id"]}))["account"]["access"] == []


def refused() -> list[tuple[dict[str, Any], str, list[str]]]:
    nobody, type_ = encode("grp", UUID(int=1)), encode("typ", UUID(int=1))
    where = ["grants", "0", "managedPolicyArn"]
    arns = (
        "",
        "ReadOnlyAccess",
        f"{ARN}/",
        f"{ARN}/a b",
        f"{ARN}/{'a' * 129}",
        "arn:aws:iam::123456789012:policy/Own",
        "arn:aws-cn:iam::aws:policy/ReadOnlyAccess",
        "arn:aws:iam::aws:role/Admin",
        "arn:aws:s3:::bucket",
        f"{ARN}/ReadOnlyAccess\n",
        f"{ARN}/{{account}}/Own",
        f"arn:aws:iam::{{account}}:policy/{'p' * 511}/Own",
    )
    return [
        ({"accountTypeId": type_}, "NOT_FOUND", ["accountTypeId"]),
        ({"accountTypeId": nobody}, "VALIDATION", ["accountTypeId"]),
        (
            {"grants": [{"role": "ADMIN"}, {"groupId": nobody, "role": "ADMIN"}]},
            "NOT_FOUND",
            ["grants", "1", "groupId"],
        ),
        ({"grants": [{"groupId": "x", "role": "ADMIN"}]}, "VALIDATION", ["grants", "0", "groupId"]),
        ({"grants": [{"role": "ADMIN"}] * 2}, "VALIDATION", ["grants", "1", "role"]),
        ({"grants": [{"role": "ADMIN"}] * 101}, "VALIDATION", ["grants"]),
        ({"revoke": [{"groupId": nobody}]}, "NOT_FOUND", ["revoke", "0", "groupId"]),
        ({"revoke": [{"role": "ADMIN"}]}, "NOT_FOUND", ["revoke", "0"]),
        ({"grants": [{"role": "READONLY"}], "revoke": [{}]}, "VALIDATION", ["revoke", "0"]),
        *(({"grants": [{"role": "ADMIN", "managedPolicyArn": arn}]}, "VALIDATION", where) for arn in arns),
    ]


@pytest.mark.parametrize(("wrong", "code", "field"), refused(), ids=lambda value: str(value)[-50:])
async def test_what_is_wrong_is_refused_and_changes_nothing(
    done: Done,
    run: Run,
    owner: Owner,
    tenant: Tenant,
    kind: str,
    group: str,
    wrong: dict[str, Any],
    code: str,
    field: list[str],
) -> None:
    await done("createAccount", name="There", accountTypeId=kind)
    await done("setAccountTypeAccess", accountTypeId=kind, grants=[{"groupId": group, "role": "READONLY"}])
    before = await contents(owner, tenant)
    asked = {
        name: [{"groupId": group, **each} for each in value] if isinstance(value, list) else value
        for name, value in wrong.items()
    }
    payload = await run("setAccountTypeAccess", **{"accountTypeId": kind, **asked})
    assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [(code, field)]
    assert payload["accountType"] is None
    assert await contents(owner, tenant) == before


async def test_the_management_account_is_not_freeholds_to_grant(
    run: Run, owner: Owner, tenant: Tenant, group: str
) -> None:
    root: UUID = await owner.fetchval(
        "INSERT INTO account_type (tenancy_id, name, foundation) VALUES ($1, 'Management', true) RETURNING id",
        tenant.tenancy_id,
    )
    grants = [{"groupId": group, "role": "READONLY"}]
    payload = await run("setAccountTypeAccess", accountTypeId=encode("typ", root), grants=grants)
    assert [(error["code"], error["field"]) for error in payload["userErrors"]] == [("PROTECTED", ["accountTypeId"])]


async def test_of_a_grant_and_accounts_that_come_meanwhile_each_gets_the_role_once(
    done: Done, run: Run, ask: Ask, kind: str, group: str
) -> None:
    grants = [{"groupId": group, "role": "ADMIN"}]
    payloads = await asyncio.gather(
        *(run("createAccount", name=f"Meanwhile {number}", accountTypeId=kind) for number in range(4)),
        *(run("setAccountTypeAccess", accountTypeId=kind, grants=grants) for _ in range(3)),
        *(run("createAccount", name=f"Meanwhile {number}", accountTypeId=kind) for number in range(4, 8)),
    )
    assert [payload["userErrors"] for payload in payloads] == [[]] * 11
    accounts = (await ask("{ accounts { nodes { name access { role } } } }"))["accounts"]["nodes"]
    found = [each["access"] for each in accounts if each["name"].startswith("Meanwhile")]
    assert found == [[{"role": "ADMIN"}]] * 8


async def test_a_type_of_a_thousand_accounts_is_granted_and_revoked_in_one_request(
    done: Done, run: Run, owner: Owner, tenant: Tenant, kind: str, group: str
) -> None:
    await owner.execute(
        "INSERT INTO account (tenancy_id, name, email, aws_account_id, role, origin, status, account_type_id,"
        " created_by_kind, created_by_name) SELECT $1, 'Many ' || n, 'many' || n || '@example.com', lpad(n::text, 12),"
        " 'MEMBER', 'CREATED', 'ACTIVE', $2, 'SYSTEM', 'test' FROM generate_series(1, 1000) n",
        tenant.tenancy_id,
        decode(kind, "typ"),
    )
    count = "SELECT count(*) FROM account_access WHERE tenancy_id = $1 AND state = $2"
    due = "SELECT count(*) FROM account WHERE tenancy_id = $1 AND governance_due_at IS NOT NULL"
    begun = time.monotonic()
    shown = await done("setAccountTypeAccess", accountTypeId=kind, grants=[{"groupId": group, "role": "ADMIN"}])
    assert shown["access"][0]["state"] == "PENDING"
    granted = time.monotonic()
    assert await owner.fetchval(count, tenant.tenancy_id, "PENDING") == 1000
    assert await owner.fetchval(due, tenant.tenancy_id) == 1000
    await done("setAccountTypeAccess", accountTypeId=kind, revoke=[{"groupId": group}])
    revoked = time.monotonic()
    assert await owner.fetchval(count, tenant.tenancy_id, "REMOVING") == 1000
    before = await contents(owner, tenant)
    groups = [(await done("createGroup", name=f"One of many {number}"))["id"] for number in range(7)]
    many = [{"groupId": each, "role": role} for each in groups for role in ("ADMIN", "DEVELOPER", "READONLY")]
    [error] = (await run("setAccountTypeAccess", accountTypeId=kind, grants=many))["userErrors"]
    assert (error["code"], error["field"]) == ("VALIDATION", ["grants"])
    assert "1000 accounts, so that at most 20 grants" in error["message"]
    assert await contents(owner, tenant) == before
    # Well under a second each, on a machine that does nothing else.
    assert granted - begun < 5
    assert revoked - granted < 5
