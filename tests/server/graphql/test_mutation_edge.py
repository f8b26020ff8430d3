"""The edge of a mutation: permissions, one transaction, and refusals as user errors."""

from typing import Any

import httpx
import pytest
import strawberry

from server.graphql.errors import UserError
from server.graphql.mutations import mutation, permissions
from server.identity.models import Role
from tests.server.fixtures import Owner, Tenant
from tests.server.graphql.schema import schema

CREATE = "mutation($n: String!) { createToken(input: {name: $n}) { name userErrors { code message field } } }"


async def create(client: httpx.AsyncClient, name: str) -> Any:
    response = await client.post("/graphql", json={"query": CREATE, "variables": {"n": name}})
    return response.json()["data"]["createToken"]


async def become(owner: Owner, tenant: Tenant, role: Role) -> None:
    await owner.execute("UPDATE api_token SET role = $1 WHERE id = $2", role.value, tenant.token_id)


async def tokens(owner: Owner, tenant: Tenant) -> int:
    return int(await owner.fetchval("SELECT count(*) FROM api_token WHERE tenancy_id = $1", tenant.tenancy_id))


async def test_what_a_service_refuses_is_a_user_error(client: httpx.AsyncClient) -> None:
    payload = await create(client, "x")
    assert payload["name"] is None
    (error,) = payload["userErrors"]
    assert (error["code"], error["field"]) == ("VALIDATION", ["name"])


async def test_a_lower_role_is_forbidden_and_nothing_runs(
    client: httpx.AsyncClient, owner: Owner, tenant: Tenant
) -> None:
    await become(owner, tenant, Role.OPERATOR)
    payload = await create(client, "fine")
    (error,) = payload["userErrors"]
    assert (payload["name"], error["code"], error["field"]) == (None, "FORBIDDEN", None)
    assert error["message"] == "This needs the role ADMIN or higher; the API token 'admin' has the role OPERATOR."
    assert await tokens(owner, tenant) == 1


async def test_a_lost_race_is_the_user_error_that_the_service_declared(client: httpx.AsyncClient) -> None:
    query = 'mutation { race(constraint: "uq_tenancy_name") { userErrors { code message field } } }'
    response = await client.post("/graphql", json={"query": query})
    assert response.json()["data"]["race"]["userErrors"] == [
        {"code": "NAME_IN_USE", "message": "This name is taken.", "field": ["name"]}
    ]


async def test_a_constraint_that_nobody_declared_is_a_fault(client: httpx.AsyncClient) -> None:
    query = 'mutation { race(constraint: "uq_other") { userErrors { code } } }'
    (error,) = (await client.post("/graphql", json={"query": query})).json()["errors"]
    assert error["extensions"] == {"code": "INTERNAL"}
    assert "uq_other" not in error["message"]


async def test_the_least_role_may_do_what_needs_the_least(
    client: httpx.AsyncClient, owner: Owner, tenant: Tenant
) -> None:
    await become(owner, tenant, Role.READONLY)
    response = await client.post("/graphql", json={"query": "mutation { refused { userErrors { code field } } }"})
    assert response.json()["data"]["refused"]["userErrors"] == [{"code": "VALIDATION", "field": ["a", "b"]}]


def test_roles_are_ordered() -> None:
    order = [Role.ADMIN, Role.OPERATOR, Role.USER, Role.READONLY]
    for have, role in enumerate(order):
        for need, permission in enumerate(order):
            assert role.includes(permission) == (have <= need)


def test_permissions_can_be_listed() -> None:
    assert permissions(schema) == {"create_token": Role.ADMIN, "race": Role.OPERATOR, "refused": Role.READONLY}


def test_a_payload_without_user_errors_is_refused_when_the_schema_is_built() -> None:
    @strawberry.type
    class Payload:
        name: str | None

    @strawberry.type
    class Mutation:
        @mutation(Role.USER)
        async def wrong(self) -> Payload:
            raise AssertionError("never runs")

    @strawberry.type
    class Query:
        errors: list[UserError]

    with pytest.raises(TypeError, match="user_errors"):
        strawberry.Schema(Query, mutation=Mutation).as_str()
