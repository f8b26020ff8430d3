"""Whether a tenancy wants its tags in AWS: who switches that, and which accounts are due then."""

import asyncio
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.governance import switch_propagation
from server.accounts.tags import TagValue
from server.assurance.requests import set_account_tags, update_account
from server.database import transaction
from server.identity.models import Role
from server.identity.service import create_token
from tests.migrations.arrange import is_waited_for
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import NewTenant, Owner, Tenant
from tests.server.waiting import until

UPDATE = """mutation($input: UpdateTenancyInput!) {
  updateTenancy(input: $input) { tenancy { propagateTags } userErrors { code } }
}"""
ADD = """
    INSERT INTO account (tenancy_id, name, email, role, origin, status, account_type_id, created_by_kind,
    created_by_name, aws_account_id) SELECT tenancy_id, $2, $2, 'MEMBER', 'CREATED', $3, account_type_id, 'SYSTEM', 't',
    $4 FROM account WHERE id = $1 RETURNING id
"""
TAG = "INSERT INTO tag (tenancy_id, account_id, key, value) VALUES ($1, $2, 'team', 'a')"
PROPAGATED = "INSERT INTO propagated_tag (tenancy_id, account_id, key) VALUES ($1, $2, 'team')"


async def add(
    owner: Owner, tenant: Tenant, name: str, *statements: str, status: str = "ACTIVE", aws: bool = True
) -> UUID:
    account_id: UUID = await owner.fetchval(ADD, tenant.account_id, name, status, name if aws else None)
    for statement in statements:
        await owner.execute(statement, tenant.tenancy_id, account_id)
    return account_id


async def due(owner: Owner, tenant: Tenant) -> set[str]:
    """The names of the accounts that are due; they are not any more."""
    rows = await owner.fetch(
        "UPDATE account SET governance_due_at = NULL WHERE tenancy_id = $1 AND governance_due_at IS NOT NULL"
        " RETURNING name",
        tenant.tenancy_id,
    )
    return {row[0] for row in rows}


async def switch(ask: Ask, **values: object) -> bool:
    payload = (await ask(UPDATE, input=values))["updateTenancy"]
    assert payload["userErrors"] == []
    return bool(payload["tenancy"]["propagateTags"])


async def test_the_accounts_with_tags_here_or_in_aws_are_due_when_it_is_switched(
    ask: Ask, owner: Owner, tenant: Tenant
) -> None:
    await add(owner, tenant, "tagged", TAG)
    await add(owner, tenant, "tagged in AWS", PROPAGATED)
    await add(owner, tenant, "closed", TAG, status="CLOSED")
    await add(owner, tenant, "not in AWS", TAG, aws=False)
    await add(owner, tenant, "untagged")
    before = await owner.fetch("SELECT updated_at FROM account WHERE tenancy_id = $1 ORDER BY id", tenant.tenancy_id)
    assert await switch(ask) is False
    assert await switch(ask, propagateTags=False) is False
    assert await due(owner, tenant) == set()
    for on in (True, False):
        assert await switch(ask, propagateTags=on) is on
        assert await due(owner, tenant) == {"tagged", "tagged in AWS"}
        assert await switch(ask, propagateTags=on) is on
        assert await due(owner, tenant) == set()
    after = await owner.fetch("SELECT updated_at FROM account WHERE tenancy_id = $1 ORDER BY id", tenant.tenancy_id)
    assert after == before


async def test_changed_tags_are_due_where_they_are_wanted(
    ask: Ask, owner: Owner, tenant: Tenant, engine: AsyncEngine
) -> None:
    account = await add(owner, tenant, "There", TAG)

    async def change(value: str) -> set[str]:
        async with transaction(engine, tenant.tenancy_id) as session:
            await update_account(session, tenant.tenancy_id, account, tags=[TagValue("team", value)])
        return await due(owner, tenant)

    assert await change("b") == set()
    await switch(ask, propagateTags=True)
    await due(owner, tenant)
    assert await change("c") == {"There"}
    # Nothing differs.
    assert await change("c") == set()


@pytest.mark.parametrize("by_update", [True, False])
async def test_no_change_is_overlooked_that_meets_the_switch(
    owner: Owner, tenant: Tenant, engine: AsyncEngine, by_update: bool
) -> None:
    account = await add(owner, tenant, "There")
    tags = [TagValue("team", "a")]
    written, over = asyncio.Event(), asyncio.Event()

    async def change() -> None:
        async with transaction(engine, tenant.tenancy_id) as session:
            if by_update:
                await update_account(session, tenant.tenancy_id, account, tags=tags)
            else:
                await set_account_tags(session, tenant.tenancy_id, account, tags)
            written.set()
            await over.wait()

    async def turn_on() -> None:
        async with transaction(engine, tenant.tenancy_id) as session:
            assert await switch_propagation(session, tenant.tenancy_id, on=True)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(change())
        await written.wait()
        switching = group.create_task(turn_on())

        async def met() -> bool:
            return switching.done() or await is_waited_for(owner)

        await until(met)
        over.set()
    assert await due(owner, tenant) == {"There"}


async def test_it_takes_an_administrator_and_reaches_no_other_tenancy(
    ask: Ask, server: httpx.AsyncClient, tenant: Tenant, new_tenant: NewTenant, worker_engine: AsyncEngine
) -> None:
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, tenant.tenancy_id, "operator", Role.OPERATOR)
    body = {"query": UPDATE, "variables": {"input": {"propagateTags": True}}}
    answer = (await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})).json()
    assert [error["code"] for error in answer["data"]["updateTenancy"]["userErrors"]] == ["FORBIDDEN"]
    theirs = await server.post("/graphql", json=body, headers=(await new_tenant()).headers)
    assert theirs.json()["data"]["updateTenancy"]["tenancy"] == {"propagateTags": True}
    assert await switch(ask) is False
