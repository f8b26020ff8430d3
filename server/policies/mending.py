"""Mending: a rollout that makes AWS as a policy is on record, where somebody has made it otherwise there."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.service import Actor
from server.errors import UserErrorCode, refuse
from server.leases import NO_ERROR, change
from server.policies.models import AttachmentState, DriftKind, PolicyDrift, PolicyState
from server.policies.requests import Target, attachment_to, locked_policy, requested_by
from server.policies.service import record_event, wake


async def mend_drift(session: AsyncSession, actor: Actor, tenancy_id: UUID, policy_id: UUID) -> UUID:
    """Have AWS made as the policy is on record. Raises Refused: NO_DRIFT, ROLLOUT_IN_PROGRESS, NOT_FOUND."""
    policy = await locked_policy(session, tenancy_id, policy_id)
    found = (await session.scalars(select(PolicyDrift).where(PolicyDrift.policy_id == policy.id))).all()
    if not found:
        raise refuse(
            UserErrorCode.NO_DRIFT,
            f"No drift of the policy {policy.name!r} is known; `checkPolicyDrift` has AWS compared now.",
            "policyId",
        )
    if policy.next_attempt_at is not None:
        raise refuse(UserErrorCode.ROLLOUT_IN_PROGRESS, f"The policy {policy.name!r} is being rolled out.", "policyId")
    for drift in found:
        drift.mending = True
    kinds = {drift.kind for drift in found}
    if policy.state is PolicyState.FAILED or kinds & {DriftKind.DOCUMENT_CHANGED, DriftKind.POLICY_MISSING}:
        # What AWS has is not known: it is written anew, and made anew where AWS does not have it.
        change(policy, state=PolicyState.PENDING, aws_version=None)
    change(policy, **NO_ERROR, **requested_by(actor))
    await record_event(session, policy)
    targets = [Target(drift.account_type_id, drift.account_id) for drift in found if drift.kind is DriftKind.DETACHED]
    for target in targets:
        attachment = (await session.scalars(attachment_to(policy, target))).one_or_none()
        if attachment is not None and attachment.state is AttachmentState.ACTIVE:
            change(attachment, state=AttachmentState.PENDING, **NO_ERROR, **requested_by(actor))
            await record_event(session, policy, attachment)
    await wake(session, policy.id)
    return policy.id
