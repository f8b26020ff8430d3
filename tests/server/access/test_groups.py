"""Groups and users: what they may be called, who is in which group, and what keeps a group from being deleted."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.graphql.ids import encode
from server.identity.models import Role
from server.identity.service import create_token
from tests.server.access.conftest import Done, Run, document
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import NewTenant, Owner, Tenant

TABLES = ("user_group", "person", "group_membership")


async def contents(owner: Owner, tenant: Tenant) -> list[str]:
    query = "SELECT t::text FROM {} t WHERE tenancy_id = $1 ORDER BY 1"
    return [row[0] for table in TABLES for row in await owner.fetch(query.format(table), tenant.tenancy_id)]


async def test_a_group_is_created_and_renamed_and_its_slug_stays(done: Done, owner: Owner, ask: Ask) -> None:
    group = await done("createGroup", name="Platform Team")
    assert group == {"id": group["id"], "name": "Platform Team", "members": [], "access": []}
    slug = await owner.fetchval("SELECT slug FROM user_group WHERE name = 'Platform Team'")
    assert slug == f"platform-team-{group['id'][-8:]}"
    assert (await done("updateGroup", groupId=group["id"], name="platform team"))["name"] == "platform team"
    assert (await done("updateGroup", groupId=group["id"], name="Runtime"))["name"] == "Runtime"
    assert await owner.fetchval("SELECT slug FROM user_group WHERE name = 'Runtime'") == slug
    nothing = await done("createGroup", name="@@")
    assert await owner.fetchval("SELECT slug FROM user_group WHERE name = '@@'") == f"group-{nothing['id'][-8:]}"
    found = await ask('{ group(by: {name: "RUNTIME"}) { id } groups { totalCount nodes { name } } }')
    assert found == {
        "group": {"id": group["id"]},
        "groups": {"totalCount": 2, "nodes": [{"name": "@@"}, {"name": "Runtime"}]},
    }


async def test_users_come_and_go(done: Done, run: Run, ask: Ask) -> None:
    user = await done("createUser", name="Zoë Größe", email="Zoe@Example.com")
    assert user == {"id": user["id"], "name": "Zoë Größe", "email": "Zoe@Example.com", "groups": []}
    assert (await done("updateUser", userId=user["id"], name="Zoe"))["email"] == "Zoe@Example.com"
    assert (await done("updateUser", userId=user["id"], email="zoe@example.com"))["name"] == "Zoe"
    first, second = [await done("createGroup", name=name) for name in ("First", "Second")]
    other = await done("createUser", name="Ann", email="ann@example.com")
    both = [other["id"], user["id"]]
    for group in (first, second, second):
        members = (await done("addGroupMembers", groupId=group["id"], userIds=both))["members"]
        assert members == [{"email": "ann@example.com"}, {"email": "zoe@example.com"}]
    found = await ask('{ user(by: {email: "ZOE@example.com"}) { groups { name } } }')
    assert found == {"user": {"groups": [{"name": "First"}, {"name": "Second"}]}}
    assert (await done("removeGroupMembers", groupId=first["id"], userIds=both))["members"] == []
    assert (await done("removeGroupMembers", groupId=first["id"], userIds=both))["members"] == []
    refused = await run("deleteGroup", groupId=second["id"])
    assert [(error["code"], error["field"]) for error in refused["userErrors"]] == [("GROUP_IN_USE", ["groupId"])]
    assert "members (2) or roles on account types (0)" in refused["userErrors"][0]["message"]
    for user_id in both:
        assert await done("deleteUser", userId=user_id) == user_id
    assert await done("deleteGroup", groupId=second["id"]) == second["id"]
    again = await done("createGroup", name="SECOND")
    assert again["id"] != second["id"]


REFUSED: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("createGroup", {"name": "a"}, "VALIDATION", ["name"]),
    ("createGroup", {"name": "a" * 65}, "VALIDATION", ["name"]),
    ("createGroup", {"name": " a "}, "VALIDATION", ["name"]),
    ("createGroup", {"name": " Platform"}, "VALIDATION", ["name"]),
    ("createGroup", {"name": "Platform "}, "VALIDATION", ["name"]),
    ("createGroup", {"name": "caf\u00e9"}, "VALIDATION", ["name"]),
    ("createGroup", {"name": "nul\u0000"}, "VALIDATION", ["name"]),
    ("createGroup", {"name": "TAKEN"}, "NAME_IN_USE", ["name"]),
    ("updateGroup", {"groupId": "other", "name": "taken"}, "NAME_IN_USE", ["name"]),
    ("updateGroup", {"groupId": "other", "name": ""}, "VALIDATION", ["name"]),
    ("updateGroup", {"groupId": encode("grp", UUID(int=1)), "name": "xx"}, "NOT_FOUND", ["groupId"]),
    ("deleteGroup", {"groupId": encode("usr", UUID(int=1))}, "VALIDATION", ["groupId"]),
    ("deleteGroup", {"groupId": encode("grp", UUID(int=1))}, "NOT_FOUND", ["groupId"]),
    ("createUser", {"name": " ", "email": "x@example.com"}, "VALIDATION", ["name"]),
    ("createUser", {"name": "a" * 129, "email": "x@example.com"}, "VALIDATION", ["name"]),
    ("createUser", {"name": "tab\t", "email": "x@example.com"}, "VALIDATION", ["name"]),
    ("createUser", {"name": "nul\u0000", "email": "x@example.com"}, "VALIDATION", ["name"]),
    ("createUser", {"name": "x", "email": "nobody"}, "VALIDATION", ["email"]),
    ("createUser", {"name": "x", "email": f"{'a' * 243}@example.com"}, "VALIDATION", ["email"]),
    ("createUser", {"name": "x", "email": "TAKEN@example.com"}, "EMAIL_IN_USE", ["email"]),
    ("updateUser", {"userId": encode("usr", UUID(int=1)), "name": "x"}, "NOT_FOUND", ["userId"]),
    ("deleteUser", {"userId": encode("usr", UUID(int=1))}, "NOT_FOUND", ["userId"]),
    ("addGroupMembers", {"groupId": "other", "userIds": [encode("usr", UUID(int=1))]}, "NOT_FOUND", ["userIds", "0"]),
    ("addGroupMembers", {"groupId": "other", "userIds": ["nonsense"]}, "VALIDATION", ["userIds", "0"]),
    ("addGroupMembers", {"groupId": "other", "userIds": [encode("usr", UUID(int=1))] * 101}, "VALIDATION", ["userIds"]),
    ("addGroupMembers", {"groupId": encode("grp", UUID(int=1)), "userIds": []}, "NOT_FOUND", ["groupId"]),
    (
        "removeGroupMembers",
        {"groupId": "other", "userIds": [encode("usr", UUID(int=1))]},
        "NOT_FOUND",
        ["userIds", "0"],
    ),
]


@pytest.mark.parametrize(("mutation", "values", "code", "field"), REFUSED, ids=lambda value: str(value)[:40])
async def test_what_is_wrong_is_refused_and_changes_nothing(
    done: Done,
    run: Run,
    owner: Owner,
    tenant: Tenant,
    mutation: str,
    values: dict[str, Any],
    code: str,
    field: list[str],
) -> None:
    await done("createGroup", name="Taken")
    other = await done("createGroup", name="Other")
    await done("createUser", name="Taken", email="taken@example.com")
    if values.get("groupId") == "other":
        values = {**values, "groupId": other["id"]}
    before = await contents(owner, tenant)
    payload = await run(mutation, **values)
    assert [(error["code"], error["field"]) for error in payload.pop("userErrors")] == [(code, field)]
    assert [*payload.values()] == [None]
    assert await contents(owner, tenant) == before


async def test_of_many_requests_for_one_name_one_is_served(run: Run) -> None:
    groups = await asyncio.gather(*(run("createGroup", name=name) for name in ("Race", "RACE", "race") * 2))
    users = await asyncio.gather(*(run("createUser", name="x", email=f"{x}ace@example.com") for x in "rRrRrR"))
    for payloads, code in ((groups, "NAME_IN_USE"), (users, "EMAIL_IN_USE")):
        assert [error["code"] for payload in payloads for error in payload["userErrors"]] == [code] * 5


async def test_it_takes_an_administrator_and_reaches_no_other_tenancy(
    server: httpx.AsyncClient, done: Done, tenant: Tenant, new_tenant: NewTenant, worker_engine: AsyncEngine
) -> None:
    group = await done("createGroup", name="Ours")
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "operator", Role.OPERATOR)
    body = {"query": document("deleteGroup"), "variables": {"input": {"groupId": group["id"]}}}
    theirs = (await new_tenant()).headers
    for headers, code in (({"authorization": f"Bearer {secret}"}, "FORBIDDEN"), (theirs, "NOT_FOUND")):
        answer = (await server.post("/graphql", json=body, headers=headers)).json()
        assert [error["code"] for error in answer["data"]["deleteGroup"]["userErrors"]] == [code]
