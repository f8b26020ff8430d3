"""The live subscription of a policy over the whole server: every event once, in order, to its last."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.service import SYSTEM
from server.database import transaction
from server.graphql.ids import encode
from server.leases import change
from server.policies import requests, service
from server.policies.models import Policy, PolicyAttachment, PolicyState
from server.policies.requests import Target
from tests.server.fixtures import NewTenant, Owner, Tenant
from tests.server.policies.test_mutations import DOCUMENT

QUERY = "subscription($policy: ID!, $after: Int) { policyRollout(policyId: $policy, after: $after) { %s } }"
SELECT = "sequence policy { name state version document } attachment { state target { __typename } }"


@asynccontextmanager
async def following(
    server: httpx.AsyncClient, tenant: Tenant, policy: str, *, after: int | None = 0, select: str = SELECT
) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
    """The events of a policy, as a real client receives them."""
    transport = WebsocketsTransport(
        url=str(server.base_url.copy_with(scheme="ws", path="/graphql")),
        init_payload={"Authorization": f"Bearer {tenant.secret}"},
    )
    request = GraphQLRequest(QUERY % select, variable_values={"policy": policy, "after": after})
    async with Client(transport=transport) as session:

        async def events() -> AsyncGenerator[dict[str, Any], None]:
            async with aclosing(session.subscribe(request)) as stream:
                async for event in stream:
                    yield event["policyRollout"]

        async with aclosing(events()) as stream:
            yield stream


async def take(events: AsyncGenerator[dict[str, Any], None], count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(count)]


async def make_policy(engine: AsyncEngine, tenant: Tenant) -> UUID:
    async with transaction(engine, tenant.tenancy_id) as session:
        return await requests.create_policy(
            session, SYSTEM, tenant.tenancy_id, name="Followed", description="", document=DOCUMENT
        )


async def attach(engine: AsyncEngine, tenant: Tenant, policy_id: UUID, target: Target) -> UUID:
    async with transaction(engine, tenant.tenancy_id) as session:
        return await requests.attach_policy(session, SYSTEM, tenant.tenancy_id, policy_id, target)


async def detached(worker_engine: AsyncEngine, policy_id: UUID, attachment_id: UUID) -> None:
    """As a worker writes it, all at once."""
    async with transaction(worker_engine) as session:
        policy = await session.get_one(Policy, policy_id, with_for_update=True)
        attachment = await session.get_one(PolicyAttachment, attachment_id)
        change(attachment, state="DETACHING")
        await service.keep_detached(session, policy, attachment_id)


async def deleted(worker_engine: AsyncEngine, policy_id: UUID) -> None:
    async with transaction(worker_engine) as session:
        policy = await session.get_one(Policy, policy_id, with_for_update=True)
        policy.state = PolicyState.DELETING
        await service.keep_deleted(session, policy)


async def test_events_are_replayed_and_then_live_to_the_last(
    server: httpx.AsyncClient, tenant: Tenant, engine: AsyncEngine, worker_engine: AsyncEngine
) -> None:
    policy_id = await make_policy(engine, tenant)
    attachment_id = await attach(engine, tenant, policy_id, Target())
    policy = encode("pol", policy_id)
    shown = {"name": "Followed", "state": "PENDING", "version": 1, "document": DOCUMENT}
    async with following(server, tenant, policy) as first, following(server, tenant, policy, after=1) as second:
        assert await take(first, 2) == [
            {"sequence": 1, "policy": shown, "attachment": None},
            {"sequence": 2, "policy": shown, "attachment": {"state": "PENDING", "target": {"__typename": "Tenancy"}}},
        ]
        assert [event["sequence"] for event in await take(second, 1)] == [2]
        async with transaction(worker_engine) as session:
            held = await session.get_one(Policy, policy_id, with_for_update=True)
            await service.keep_version(session, held, "p-followed", 1)
        await detached(worker_engine, policy_id, attachment_id)
        await deleted(worker_engine, policy_id)
        for events in (first, second):
            active, gone, last = await take(events, 3)
            assert (active["sequence"], active["policy"]["state"]) == (3, "ACTIVE")
            assert (gone["sequence"], gone["attachment"]["state"]) == (4, "DETACHED")
            assert last == {"sequence": 5, "policy": {**shown, "state": "DELETED"}, "attachment": None}
    # Whoever was away then is told as well.
    async with following(server, tenant, policy, after=4) as events:
        assert (await take(events, 1))[0]["policy"]["state"] == "DELETED"


async def test_what_an_event_leads_to_may_be_gone(
    server: httpx.AsyncClient, tenant: Tenant, engine: AsyncEngine, worker_engine: AsyncEngine
) -> None:
    policy_id = await make_policy(engine, tenant)
    attachment_id = await attach(engine, tenant, policy_id, Target())
    await detached(worker_engine, policy_id, attachment_id)
    await deleted(worker_engine, policy_id)
    select = "sequence policy { attachments { id } versions { number } } attachment { id policy { name state } }"
    async with following(server, tenant, encode("pol", policy_id), select=select) as events:
        found = await take(events, 4)
    assert [event["attachment"] for event in found] == [
        None,
        *[{"id": encode("att", attachment_id), "policy": {"name": "Followed", "state": "DELETED"}}] * 2,
        None,
    ]
    assert {str(event["policy"]) for event in found} == {"{'attachments': [], 'versions': []}"}


async def test_a_subscriber_that_missed_the_notification_is_woken(
    server: httpx.AsyncClient, tenant: Tenant, engine: AsyncEngine, owner: Owner
) -> None:
    policy_id = await make_policy(engine, tenant)
    async with following(server, tenant, encode("pol", policy_id), select="sequence") as events:
        assert await take(events, 1) == [{"sequence": 1}]
        # Without a notification, as when it is lost; the policy itself may be gone by then.
        await owner.execute(
            "INSERT INTO policy_event (policy_id, sequence, tenancy_id, policy)"
            " SELECT policy_id, 2, tenancy_id, policy FROM policy_event WHERE policy_id = $1",
            policy_id,
        )
        assert await take(events, 1) == [{"sequence": 2}]


@pytest.mark.parametrize(
    ("policy", "after", "code"),
    [
        ("pol_" + "0" * 32, 0, "NOT_FOUND"),
        ("theirs", 0, "NOT_FOUND"),
        ("nonsense", 0, "VALIDATION"),
        ("acc_" + "0" * 32, 0, "VALIDATION"),
        ("ours", -1, "VALIDATION"),
        ("ours", 2, "VALIDATION"),
    ],
)
async def test_what_cannot_be_followed_is_an_error(
    server: httpx.AsyncClient, new_tenant: NewTenant, engine: AsyncEngine, policy: str, after: int, code: str
) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    ids = {
        "ours": encode("pol", await make_policy(engine, ours)),
        "theirs": encode("pol", await make_policy(engine, theirs)),
    }
    async with following(server, ours, ids.get(policy, policy), after=after) as events:
        with pytest.raises(TransportQueryError) as caught:
            await anext(events)
    assert caught.value.errors is not None
    assert caught.value.errors[0]["extensions"] == {"code": code}
    assert caught.value.errors[0]["path"] == ["policyRollout"]
