"""Asking for comparisons and mendings, and drift as followers of a policy hear of it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.service import SYSTEM
from server.database import minified, transaction
from server.graphql.ids import encode
from server.identity.models import Role
from server.identity.service import create_token
from server.leases import StageError, StageErrorClass, rest
from server.policies import comparison, drift, requests, service
from server.policies.drift import InAws, Judged
from server.policies.models import Policy, PolicyComparison
from server.policies.requests import Target
from tests.server.assurance.conftest import Ask
from tests.server.fixtures import NewTenant, Owner, Tenant
from tests.server.policies.test_mutations import DOCUMENT
from tests.server.policies.test_rollout_events import following, take

CHECK = """mutation($input: CheckPolicyDriftInput!) { checkPolicyDrift(input: $input) {
    awaited tenancy { policiesCheckedAt policyDrift { kind } } userErrors { code field message } } }"""
MEND = """mutation($input: MendPolicyDriftInput!) { mendPolicyDrift(input: $input) {
    policy { id state requestedBy { name } drift { kind mending } attachments { state requestedBy { name } } }
    userErrors { code field message } } }"""


async def rolled_out(worker_engine: AsyncEngine, tenant: Tenant, *targets: Target) -> UUID:
    """A policy of which a rollout has just made AWS so."""
    async with transaction(worker_engine) as session:
        policy_id = await requests.create_policy(
            session, SYSTEM, tenant.tenancy_id, name="Ours", description="", document=DOCUMENT
        )
        policy = await session.get_one(Policy, policy_id)
        for target in targets:
            attachment = await requests.add_attachment(session, SYSTEM, policy, target)
            await service.keep_attached(session, policy, attachment.id)
        await session.refresh(policy)
        await service.keep_version(session, policy, f"p-{uuid4().hex[:8]}", 1)
        await rest(session, policy)
    return policy_id


async def compared(worker_engine: AsyncEngine, tenant: Tenant, policy_id: UUID, in_aws: InAws | None) -> Judged | None:
    """As a worker writes down what it has read."""
    async with transaction(worker_engine) as session:
        await comparison.ensure_comparison(session, tenant.tenancy_id)
        rows = select(PolicyComparison).where(PolicyComparison.tenancy_id == tenant.tenancy_id)
        row = (await session.scalars(rows)).one()
        row.after_policy_id = None
        reading = await drift.next_reading(session, row)
        assert reading is not None
        assert reading.policy_id == policy_id
        return await drift.keep_reading(session, row, reading, in_aws)


async def ended(worker_engine: AsyncEngine, tenant: Tenant, error: StageError | None = None) -> None:
    """As a worker writes down the comparison that is due, from its beginning to its end."""
    async with transaction(worker_engine) as session:
        rows = select(PolicyComparison).where(PolicyComparison.tenancy_id == tenant.tenancy_id)
        row = (await session.scalars(rows)).one()
        assert await comparison.begin(session, row, None) is not None
        if error is not None:
            await comparison.keep_refused(session, row, error)
        await comparison.finish(session, row, None)


async def in_organization(owner: Owner, tenant: Tenant) -> None:
    root = f"r-{uuid4().hex[:8]}"
    await owner.execute("UPDATE tenancy SET aws_root_id = $2 WHERE id = $1", tenant.tenancy_id, root)


async def refusal(ask: Ask, mutation: str, **input_: object) -> Mapping[str, Any]:
    [payload] = (await ask(mutation, input=input_)).values()
    [error] = payload.pop("userErrors")
    assert set(payload.values()) == {None}
    return dict(error)


async def test_a_comparison_is_asked_for(ask: Ask, tenant: Tenant, owner: Owner, worker_engine: AsyncEngine) -> None:
    error = await refusal(ask, CHECK)
    assert (error["code"], error["field"]) == ("NOT_READY", None)
    assert await owner.fetchval("SELECT count(*) FROM policy_comparison WHERE tenancy_id = $1", tenant.tenancy_id) == 0
    await in_organization(owner, tenant)
    error = await refusal(ask, CHECK, ifOlderThanSeconds=-1)
    assert (error["code"], error["field"]) == ("VALIDATION", ["ifOlderThanSeconds"])
    first = (await ask(CHECK, input={}))["checkPolicyDrift"]
    assert first["userErrors"] == []
    assert first["tenancy"] == {"policiesCheckedAt": None, "policyDrift": []}
    row = await owner.fetchrow(
        "SELECT requested_at, next_attempt_at, hint_number FROM policy_comparison WHERE tenancy_id = $1",
        tenant.tenancy_id,
    )
    assert row is not None
    assert row["requested_at"] == row["next_attempt_at"]
    # Nothing was compared yet, so nothing is recent enough; another wake-up is another job.
    second = (await ask(CHECK, input={"ifOlderThanSeconds": 3600}))["checkPolicyDrift"]
    assert second["awaited"] > first["awaited"]
    hints = "SELECT hint_number FROM policy_comparison WHERE tenancy_id = $1"
    assert await owner.fetchval(hints, tenant.tenancy_id) == row["hint_number"] + 1
    async with transaction(worker_engine) as session:
        await session.execute(
            update(PolicyComparison)
            .where(PolicyComparison.tenancy_id == tenant.tenancy_id)
            .values(checked_at=func.now(), requested_at=None)
        )
    third = (await ask(CHECK, input={"ifOlderThanSeconds": 3600}))["checkPolicyDrift"]
    assert third["awaited"] == third["tenancy"]["policiesCheckedAt"]
    assert await owner.fetchval(hints, tenant.tenancy_id) == row["hint_number"] + 1


async def test_what_aws_refuses_is_shown_and_is_no_comparison_to_rely_on(
    ask: Ask, tenant: Tenant, owner: Owner, worker_engine: AsyncEngine
) -> None:
    show = "{ tenancy { policiesCheckedAt policyComparison { startedAt refusedAt error { code message class } } } }"
    assert (await ask(show))["tenancy"] == {"policiesCheckedAt": None, "policyComparison": None}
    await in_organization(owner, tenant)
    first = (await ask(CHECK, input={}))["checkPolicyDrift"]["awaited"]
    await ended(worker_engine, tenant, StageError("Denied", "Allow it.", StageErrorClass.NEEDS_PERSON))
    tenancy = (await ask(show))["tenancy"]
    assert tenancy["policiesCheckedAt"] >= first
    assert tenancy["policyComparison"].pop("refusedAt") >= tenancy["policiesCheckedAt"]
    assert tenancy["policyComparison"] == {
        "startedAt": None,
        "error": {"code": "Denied", "message": "Allow it.", "class": "NEEDS_PERSON"},
    }
    again = (await ask(CHECK, input={"ifOlderThanSeconds": 3600}))["checkPolicyDrift"]
    assert again["awaited"] > tenancy["policiesCheckedAt"]
    await ended(worker_engine, tenant)
    tenancy = (await ask(show))["tenancy"]
    assert tenancy["policyComparison"] == {"startedAt": None, "refusedAt": None, "error": None}
    enough = (await ask(CHECK, input={"ifOlderThanSeconds": 3600}))["checkPolicyDrift"]
    assert enough["awaited"] == tenancy["policiesCheckedAt"]


async def test_mending_begins_a_rollout(ask: Ask, tenant: Tenant, owner: Owner, worker_engine: AsyncEngine) -> None:
    await in_organization(owner, tenant)
    policy_id = await rolled_out(worker_engine, tenant, Target())
    policy = encode("pol", policy_id)
    error = await refusal(ask, MEND, policyId=policy)
    assert (error["code"], error["field"]) == ("NO_DRIFT", ["policyId"])
    assert "checkPolicyDrift" in error["message"]
    assert await compared(worker_engine, tenant, policy_id, InAws("Theirs", "", "{}", {})) == Judged(
        found=(
            "Somebody has changed its document and its name in AWS; it is called 'Theirs' there.",
            f"Somebody has detached it in AWS from the tenancy ({await root_of(owner, tenant)}).",
        )
    )
    assert (await ask(MEND, input={"policyId": policy}))["mendPolicyDrift"] == {
        "policy": {
            "id": policy,
            "state": "PENDING",
            "drift": [{"kind": "DETACHED", "mending": True}, {"kind": "DOCUMENT_CHANGED", "mending": True}],
            "requestedBy": {"name": "admin"},
            "attachments": [{"state": "PENDING", "requestedBy": {"name": "admin"}}],
        },
        "userErrors": [],
    }
    assert await owner.fetchval("SELECT next_attempt_at <= now() FROM policy WHERE id = $1", policy_id)
    assert (await refusal(ask, MEND, policyId=policy))["code"] == "ROLLOUT_IN_PROGRESS"


async def test_only_an_admin_may_and_only_of_their_own_tenancy(
    ask: Ask, server: httpx.AsyncClient, new_tenant: NewTenant, tenant: Tenant, owner: Owner, worker_engine: AsyncEngine
) -> None:
    theirs = await new_tenant()
    for each in (tenant, theirs):
        await in_organization(owner, each)
    policy_id = await rolled_out(worker_engine, theirs)
    await compared(worker_engine, theirs, policy_id, None)
    error = await refusal(ask, MEND, policyId=encode("pol", policy_id))
    assert (error["code"], error["field"]) == ("NOT_FOUND", ["policyId"])
    assert (await refusal(ask, MEND, policyId="acc_" + "0" * 32))["code"] == "VALIDATION"
    assert (await ask("{ tenancy { policyDrift { kind } } }"))["tenancy"] == {"policyDrift": []}
    assert not await owner.fetchval("SELECT bool_or(mending) FROM policy_drift WHERE policy_id = $1", policy_id)
    async with transaction(worker_engine) as session:
        _, secret = await create_token(session, theirs.tenancy_id, "operator", Role.OPERATOR)
    for query, input_ in ((MEND, {"policyId": encode("pol", policy_id)}), (CHECK, {})):
        body = {"query": query, "variables": {"input": input_}}
        answer = await server.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})
        [payload] = answer.json()["data"].values()
        assert [each["code"] for each in payload["userErrors"]] == ["FORBIDDEN"]
    assert (
        await owner.fetchval("SELECT requested_at FROM policy_comparison WHERE tenancy_id = $1", theirs.tenancy_id)
        is None
    )


async def test_followers_hear_of_drift_and_of_its_end(
    server: httpx.AsyncClient, tenant: Tenant, owner: Owner, worker_engine: AsyncEngine
) -> None:
    await in_organization(owner, tenant)
    policy_id = await rolled_out(worker_engine, tenant)
    last = await owner.fetchval("SELECT last_seq FROM policy WHERE id = $1", policy_id)
    select_ = "sequence policy { state drift { kind awsTargetId } }"
    target = {"kind": "ATTACHED_ELSEWHERE", "awsTargetId": "ou-abcd-99999999"}
    in_aws = InAws("Ours", "", minified(DOCUMENT), {"ou-abcd-99999999": "Sandbox"})
    async with following(server, tenant, encode("pol", policy_id), after=last, select=select_) as events:
        await compared(worker_engine, tenant, policy_id, in_aws)
        assert await take(events, 1) == [{"sequence": last + 1, "policy": {"state": "ACTIVE", "drift": [target]}}]
        assert await compared(worker_engine, tenant, policy_id, in_aws) == Judged()
        await compared(worker_engine, tenant, policy_id, InAws("Ours", "", in_aws.content, {}))
        assert await take(events, 1) == [{"sequence": last + 2, "policy": {"state": "ACTIVE", "drift": []}}]


@pytest.mark.parametrize("change", ["event", "due"])
async def test_what_was_read_before_a_change_does_not_count(
    tenant: Tenant, owner: Owner, worker_engine: AsyncEngine, change: str
) -> None:
    policy_id = await rolled_out(worker_engine, tenant)
    async with transaction(worker_engine) as session:
        await comparison.ensure_comparison(session, tenant.tenancy_id)
        rows = select(PolicyComparison).where(PolicyComparison.tenancy_id == tenant.tenancy_id)
        row = (await session.scalars(rows)).one()
        reading = await drift.next_reading(session, row)
        assert reading is not None
        policy = await session.get_one(Policy, policy_id)
        if change == "event":
            await service.record_event(session, policy)
        else:
            await service.wake(session, policy_id)
        assert await drift.keep_reading(session, row, reading, None) is None
        assert row.after_policy_id is None
    assert await owner.fetchval("SELECT count(*) FROM policy_drift WHERE policy_id = $1", policy_id) == 0


async def root_of(owner: Owner, tenant: Tenant) -> str:
    return str(await owner.fetchval("SELECT aws_root_id FROM tenancy WHERE id = $1", tenant.tenancy_id))
