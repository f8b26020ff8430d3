"""Mutations of policies and of what they are attached to."""

from datetime import datetime
from typing import Any
from uuid import UUID

import strawberry
from strawberry.scalars import JSON
from strawberry.types import Info

from server.accounts.service import actor
from server.context import Context
from server.graphql.errors import UserError
from server.graphql.mutations import mutate, mutation, node_id
from server.identity.models import Role
from server.planner import read_payload
from server.policies import requests
from server.policies.checks import Checked, check_document, check_stored, compare_document
from server.policies.comparison import request_comparison
from server.policies.inputs import PolicyTargetInput, target_of
from server.policies.mending import mend_drift
from server.policies.types import Policy, PolicyAttachment
from server.tenancies.types import Tenancy

NAME = "1 to 128 printable characters, not FullAWSAccess nor freehold-...; unique in the tenancy, whatever the case."
DESCRIPTION = "At most 512 characters."
DOCUMENT = "The policy in the grammar of AWS, as a JSON object or as its text."
UNKNOWN = "Actions in the document that are taken although Freehold does not know them: newer than its list of AWS's."
WARNINGS = "What cannot be told of the document: calls of Freehold's own that it may deny, and what that depends on."


@strawberry.input
class CreatePolicyInput:
    name: str = strawberry.field(description=NAME)
    description: str = strawberry.field(description=DESCRIPTION)
    document: JSON = strawberry.field(description=DOCUMENT)
    allow_unknown_actions: list[str] | None = strawberry.field(default=None, description=UNKNOWN)


@strawberry.input
class UpdatePolicyInput:
    policy_id: strawberry.ID
    expected_version: int | None = strawberry.field(
        default=None,
        description=(
            "The `version` that the change was made from: refused with VERSION_CONFLICT when somebody has written "
            "another one since. Absent: whatever it is by now."
        ),
    )
    name: str | None = strawberry.field(default=None, description=f"{NAME} Absent: unchanged.")
    description: str | None = strawberry.field(default=None, description=f"{DESCRIPTION} Absent: unchanged.")
    document: JSON | None = strawberry.field(default=None, description=f"{DOCUMENT} Absent: unchanged.")
    allow_unknown_actions: list[str] | None = strawberry.field(default=None, description=UNKNOWN)


@strawberry.input
class DeletePolicyInput:
    policy_id: strawberry.ID


@strawberry.input
class AttachPolicyInput:
    policy_id: strawberry.ID
    target: PolicyTargetInput


@strawberry.input
class DetachPolicyInput:
    policy_id: strawberry.ID
    target: PolicyTargetInput


@strawberry.input
class RetryPolicyRolloutInput:
    policy_id: strawberry.ID


@strawberry.input
class CheckPolicyDriftInput:
    if_older_than_seconds: int | None = strawberry.field(
        default=None,
        description="A comparison that began no longer ago than this is enough. Absent: there is another one anyway.",
    )


@strawberry.input
class MendPolicyDriftInput:
    policy_id: strawberry.ID


@strawberry.type
class CreatePolicyPayload:
    policy: Policy | None
    user_errors: list[UserError]
    warnings: list[str] = strawberry.field(default_factory=list, description=WARNINGS)


@strawberry.type
class UpdatePolicyPayload:
    policy: Policy | None
    user_errors: list[UserError]
    warnings: list[str] = strawberry.field(default_factory=list, description=WARNINGS)


@strawberry.type
class DeletePolicyPayload:
    policy: Policy | None = strawberry.field(description="DELETING; null as well when it is gone already.")
    user_errors: list[UserError]


@strawberry.type
class AttachPolicyPayload:
    attachment: PolicyAttachment | None
    user_errors: list[UserError]
    warnings: list[str] = strawberry.field(default_factory=list, description=WARNINGS)


@strawberry.type
class DetachPolicyPayload:
    attachment: PolicyAttachment | None = strawberry.field(
        description="DETACHING; null as well when it is gone already."
    )
    user_errors: list[UserError]


@strawberry.type
class RetryPolicyRolloutPayload:
    policy: Policy | None
    user_errors: list[UserError]


@strawberry.type
class CheckPolicyDriftPayload:
    tenancy: Tenancy | None
    user_errors: list[UserError]
    awaited: datetime | None = strawberry.field(
        default_factory=lambda: None,
        description="AWS has been compared when `policiesCheckedAt` is this moment or a later one.",
    )


@strawberry.type
class MendPolicyDriftPayload:
    policy: Policy | None
    user_errors: list[UserError]


@strawberry.type
class PolicyMutation:
    @mutation(
        Role.ADMIN,
        races=requests.RACES,
        description="Create a policy. It is in force nowhere until it is attached; follow it with `policyRollout`.",
    )
    async def create_policy(self, info: Info[Context, None], input: CreatePolicyInput) -> CreatePolicyPayload:
        viewer = info.context.viewer
        checked = await _checked(info, input.document, input.allow_unknown_actions)
        policy_id = await mutate(
            info,
            lambda session: requests.create_policy(
                session,
                actor(viewer),
                viewer.tenancy_id,
                name=input.name,
                description=input.description,
                document=checked.value,
            ),
        )
        payload = await read_payload(info, CreatePolicyPayload, policy=policy_id)
        payload.warnings = list(checked.warnings)
        return payload

    @mutation(
        Role.ADMIN,
        races=requests.RACES,
        description="Change a policy, as another version. It is in force wherever the policy is attached.",
    )
    async def update_policy(self, info: Info[Context, None], input: UpdatePolicyInput) -> UpdatePolicyPayload:
        policy_id = node_id(input.policy_id, "pol", "policyId")
        checked = (
            None
            if input.document is None
            else await _checked(info, input.document, input.allow_unknown_actions, policy_id)
        )
        await _update(info, policy_id, input, None if checked is None else checked.value)
        payload = await read_payload(info, UpdatePolicyPayload, policy=policy_id)
        payload.warnings = [] if checked is None else list(checked.warnings)
        return payload

    @mutation(Role.ADMIN, description="Delete a policy that is attached to nothing, here and in AWS.")
    async def delete_policy(self, info: Info[Context, None], input: DeletePolicyInput) -> DeletePolicyPayload:
        viewer = info.context.viewer
        policy_id = node_id(input.policy_id, "pol", "policyId")
        await mutate(info, lambda session: requests.delete_policy(session, actor(viewer), viewer.tenancy_id, policy_id))
        return await read_payload(info, DeletePolicyPayload, policy=policy_id)

    @mutation(
        Role.ADMIN,
        races=requests.RACES,
        description="Attach a policy to a target. A target that AWS does not have yet gets it when AWS has it.",
    )
    async def attach_policy(self, info: Info[Context, None], input: AttachPolicyInput) -> AttachPolicyPayload:
        viewer = info.context.viewer
        policy_id, target = node_id(input.policy_id, "pol", "policyId"), target_of(input.target)
        warnings = await check_stored(info.context.engine, viewer.tenancy_id, policy_id, target)
        attachment_id = await mutate(
            info,
            lambda session: requests.attach_policy(session, actor(viewer), viewer.tenancy_id, policy_id, target),
        )
        payload = await read_payload(info, AttachPolicyPayload, attachment=attachment_id)
        payload.warnings = list(warnings)
        return payload

    @mutation(Role.ADMIN, description="Detach a policy from a target, where it stays in force until AWS has done so.")
    async def detach_policy(self, info: Info[Context, None], input: DetachPolicyInput) -> DetachPolicyPayload:
        viewer = info.context.viewer
        policy_id, target = node_id(input.policy_id, "pol", "policyId"), target_of(input.target)
        attachment_id = await mutate(
            info,
            lambda session: requests.detach_policy(session, actor(viewer), viewer.tenancy_id, policy_id, target),
        )
        return await read_payload(info, DetachPolicyPayload, attachment=attachment_id)

    @mutation(Role.ADMIN, description="Try again at once what AWS has refused of a policy, or what waits.")
    async def retry_policy_rollout(
        self, info: Info[Context, None], input: RetryPolicyRolloutInput
    ) -> RetryPolicyRolloutPayload:
        viewer = info.context.viewer
        policy_id = node_id(input.policy_id, "pol", "policyId")
        await mutate(info, lambda session: requests.retry_rollout(session, actor(viewer), viewer.tenancy_id, policy_id))
        return await read_payload(info, RetryPolicyRolloutPayload, policy=policy_id)

    @mutation(Role.ADMIN, description="Compare all policies with AWS now, without waiting for the next comparison.")
    async def check_policy_drift(
        self, info: Info[Context, None], input: CheckPolicyDriftInput
    ) -> CheckPolicyDriftPayload:
        tenancy_id = info.context.viewer.tenancy_id
        awaited = await mutate(
            info, lambda session: request_comparison(session, tenancy_id, input.if_older_than_seconds)
        )
        payload = await read_payload(info, CheckPolicyDriftPayload, tenancy=tenancy_id)
        payload.awaited = awaited
        return payload

    @mutation(
        Role.ADMIN,
        description="Make AWS as a policy is on record, where somebody has made it otherwise; follow `policyRollout`.",
    )
    async def mend_policy_drift(self, info: Info[Context, None], input: MendPolicyDriftInput) -> MendPolicyDriftPayload:
        viewer = info.context.viewer
        policy_id = node_id(input.policy_id, "pol", "policyId")
        await mutate(info, lambda session: mend_drift(session, actor(viewer), viewer.tenancy_id, policy_id))
        return await read_payload(info, MendPolicyDriftPayload, policy=policy_id)


async def _update(
    info: Info[Context, None], policy_id: UUID, input: UpdatePolicyInput, document: dict[str, Any] | None
) -> None:
    context = info.context

    async def compared() -> requests.Compared | None:
        """Found before the policy is locked: to compare two documents may take a while."""
        if document is None:
            return None
        return await compare_document(context.engine, context.viewer.tenancy_id, policy_id, document)

    async def update(found: requests.Compared | None) -> None:
        await mutate(
            info,
            lambda session: requests.update_policy(
                session,
                actor(context.viewer),
                context.viewer.tenancy_id,
                policy_id,
                expected_version=input.expected_version,
                name=input.name,
                description=input.description,
                document=document,
                compared=found,
            ),
        )

    while True:
        try:
            return await update(await compared())
        except requests.Moved:
            # Somebody else has come first, so that this ends.
            continue


async def _checked(
    info: Info[Context, None], document: object, accepted: list[str] | None, policy_id: UUID | None = None
) -> Checked:
    context = info.context
    return await check_document(context.engine, context.viewer.tenancy_id, document, accepted or (), policy_id)
