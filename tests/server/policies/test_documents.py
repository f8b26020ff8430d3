"""The documents of policies as PostgreSQL keeps them: minified, in the order and the characters of their author."""

import asyncpg
import pytest
from sqlalchemy import select
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.models import ActorKind
from server.config import Settings
from server.database import transaction
from server.policies.models import Policy
from tests.server.fixtures import Owner, Tenant, running

DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "Größe", "Effect": "Deny", "Action": ["b:*", "a:*"]}],
    "Id": 1.0,
}
KEPT = '{"Version":"2012-10-17","Statement":[{"Sid":"Größe","Effect":"Deny","Action":["b:*","a:*"]}],"Id":1.0}'


async def add(engine: AsyncEngine, tenant: Tenant, document: dict[str, object]) -> None:
    async with transaction(engine, tenant.tenancy_id) as session:
        session.add(
            Policy(
                tenancy_id=tenant.tenancy_id,
                name="p",
                description="",
                document=document,
                created_by_kind=ActorKind.SYSTEM,
                created_by_name="Freehold",
            )
        )


async def test_kept_minified_and_read_as_it_is_kept(
    settings: Settings, engine: AsyncEngine, owner: Owner, tenant: Tenant
) -> None:
    await add(engine, tenant, DOCUMENT)
    kept = await owner.fetchval("SELECT document FROM policy WHERE tenancy_id = $1", tenant.tenancy_id)
    assert kept == KEPT
    async with transaction(engine, tenant.tenancy_id) as session:
        found = (await session.scalars(select(Policy.document))).one()
    assert (found, list(found)) == (DOCUMENT, list(DOCUMENT))
    async with running(settings) as client:
        query = {"query": "{ policies(first: 1) { nodes { document } } }"}
        answer = await client.post("/graphql", json=query, headers=tenant.headers)
    assert answer.text == f'{{"data":{{"policies":{{"nodes":[{{"document":{KEPT}}}]}}}}}}'


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a":NaN}'])
async def test_nothing_but_an_object_is_kept(owner: Owner, tenant: Tenant, text: str) -> None:
    add = (
        "INSERT INTO policy (tenancy_id, name, description, document, managed, state, created_by_kind, created_by_name)"
        " VALUES ($1, 'p', '', $2, false, 'PENDING', 'SYSTEM', 'Freehold')"
    )
    with pytest.raises(asyncpg.CheckViolationError, match="ck_policy_document"):
        await owner.execute(add, tenant.tenancy_id, text)


async def test_what_is_not_json_is_refused_before_it_is_sent(engine: AsyncEngine, tenant: Tenant) -> None:
    with pytest.raises(StatementError, match="not JSON compliant"):
        await add(engine, tenant, {"a": float("nan")})
