"""GraphQL types of policies and their attachments."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import strawberry
from strawberry.scalars import JSON

from server.account_types.types import AccountType
from server.accounts.types import Account, Actor
from server.graphql.connections import Node, OrderDirection
from server.graphql.ids import decode
from server.graphql.scalars import expose
from server.leases import StageErrorClass
from server.planner.kinds import SortKey
from server.planner.mapping import (
    column,
    computed,
    condition,
    contains,
    embedded,
    one_of_types,
    snapshot,
    table,
    to_many,
    to_one,
)
from server.policies import models
from server.policies.models import AttachmentState, DriftKind, PolicyState, Via
from server.tenancies.types import Tenancy

expose(
    PolicyState,
    "How far a policy has come in AWS.",
    PENDING="AWS does not have this version yet; `error` says why, where it has not worked so far.",
    ACTIVE="As in AWS. Each attachment has a state of its own.",
    DELETING="Being deleted; `error` says why, where it has not worked so far.",
    FAILED="AWS has refused this version; `error` says why.",
    DELETED="Gone: in the last event of `policyRollout` alone.",
)
expose(
    AttachmentState,
    "How far an attachment has come in AWS.",
    PENDING="Not in force yet: it is being attached, or the target is not in AWS yet.",
    ACTIVE="In force.",
    DETACHING="Still in force; being removed. `error` says why, where it has not worked so far.",
    FAILED="AWS has refused it; `error` says why.",
    DETACHED="Gone: in the attachment's last event of `policyRollout` alone.",
)

expose(
    Via,
    "By which of its targets a policy reaches an account.",
    TENANCY="It is attached to the whole tenancy.",
    ACCOUNT_TYPE="It is attached to the account's type.",
    ACCOUNT="It is attached to the account itself.",
    name="EffectivePolicyVia",
)

expose(
    DriftKind,
    "What somebody has done in AWS, without Freehold.",
    DOCUMENT_CHANGED="Given the policy another document, name or description.",
    POLICY_MISSING="Deleted the policy.",
    DETACHED="Detached it from a target.",
    ATTACHED_ELSEWHERE="Attached it to a target of which Freehold knows nothing.",
)

PolicyTarget = Annotated[
    Tenancy | AccountType | Account, strawberry.union("PolicyTarget", description="What a policy can be attached to.")
]


@strawberry.type(description="Why a policy or an attachment is not in AWS as it is here.")
class RolloutError:
    code: str = strawberry.field(description="AWS's own code where there is one.")
    message: str = strawberry.field(description="What happened, and what to do.")
    class_: StageErrorClass = column("class", graphql_name="class")
    aws_request_id: str | None = strawberry.field(description="What AWS Support asks for.")


@strawberry.type(description="A policy as somebody wrote it.")
@table(models.PolicyVersion)
class PolicyVersion:
    number: int = strawberry.field(description="From 1.")
    name: str
    description: str
    document: JSON
    diff: str = strawberry.field(
        description="The lines of the document that changed since the version before, as `diff -u` shows them."
    )
    created_at: datetime
    created_by: Actor = embedded("created_by_")


@strawberry.type(description="A service control policy: what nobody in the accounts it reaches may do.")
@table(models.Policy, node="pol")
class Policy(Node):
    name: str = strawberry.field(description="Unique in the tenancy, whatever the case.")
    description: str
    document: JSON = strawberry.field(description="The policy in the grammar of AWS, as its author wrote it.")
    managed: bool = strawberry.field(description="Freehold's own, which nobody may change.")
    state: PolicyState
    version: int = strawberry.field(description="The number of the newest of `versions`.")
    versions: list[PolicyVersion] = to_many(on={"policy_id": "id"}, order=("-number",), description="Newest first.")
    error: RolloutError | None = embedded("error_", when="code", description="The error of the last attempt.")
    next_attempt_at: datetime | None = strawberry.field(
        description="When the rollout goes on, for what an error keeps from going on at once."
    )
    aws_policy_id: str | None = strawberry.field(description="As in AWS, `p-...`; null until it exists.")
    last_sequence: int = column(
        "last_seq", description="The number of the last event of `policyRollout`; 0 before any."
    )
    created_at: datetime
    created_by: Actor = embedded("created_by_")
    requested_by: Actor | None = embedded(
        "requested_by_",
        when="kind",
        description="Who asked last for a change of it, its deletion, or another attempt. Null for what is older.",
    )
    updated_at: datetime = strawberry.field(description="When its newest version was written.")
    attachments: list["PolicyAttachment"] = to_many(
        on={"policy_id": "id"}, order=("created_at", "id"), description="Oldest first."
    )
    drift: list["PolicyDrift"] = to_many(
        on={"policy_id": "id"},
        order=("found_at", "kind", "aws_target_id"),
        description="What AWS had otherwise when the policy was last compared; `mendPolicyDrift` puts it right.",
    )


@strawberry.type(description="A policy on its target.")
@table(models.PolicyAttachment, node="att")
class PolicyAttachment(Node):
    policy: Policy = to_one(
        on={"id": "policy_id"},
        # An event of the attachment may be read when the policy is gone.
        kept=(
            "(select policy from policy_event where tenancy_id = {row}.tenancy_id and policy_id = {row}.policy_id"
            " order by sequence desc limit 1)"
        ),
    )
    target: PolicyTarget = one_of_types(
        {Account: {"id": "account_id"}, AccountType: {"id": "account_type_id"}, Tenancy: {"id": "tenancy_id"}},
        description="The tenancy stands for all of its accounts.",
    )
    state: AttachmentState
    error: RolloutError | None = embedded("error_", when="code", description="The error of the last attempt.")
    created_at: datetime
    created_by: Actor = embedded("created_by_")
    requested_by: Actor | None = embedded(
        "requested_by_",
        when="kind",
        description="Who asked last that it be attached, detached, or tried again. Null for what is older.",
    )


@strawberry.type(description="Why AWS was not compared with a policy, or with none.")
class PolicyComparisonError:
    code: str = strawberry.field(description="AWS's own code where there is one.")
    message: str = strawberry.field(description="Which policy was not compared, why, and what to do.")
    class_: StageErrorClass = column("class", graphql_name="class")
    aws_request_id: str | None = strawberry.field(description="What AWS Support asks for.")


@strawberry.type(description="How the comparisons of policies with AWS go.")
@table(models.PolicyComparison)
class PolicyComparison:
    started_at: datetime | None = strawberry.field(description="When the one under way began; null at rest.")
    next_attempt_at: datetime | None = strawberry.field(
        description="When policies are compared next, or the one under way goes on; null when somebody has to ask."
    )
    refused_at: datetime | None = strawberry.field(description="When AWS refused what `error` is about.")
    error: PolicyComparisonError | None = embedded(
        "error_",
        when="code",
        description=(
            "What AWS refused last; the worker's log has every refusal. Null as soon as a comparison comes to its end"
            " in which AWS refuses nothing."
        ),
    )


@strawberry.type(description="What AWS has otherwise than the policy is on record.")
@table(models.PolicyDrift)
class PolicyDrift:
    policy: Policy = to_one(on={"id": "policy_id"})
    kind: DriftKind
    found_at: datetime = strawberry.field(description="When a comparison first found it.")
    detail: str = strawberry.field(description="What was done in AWS, as a sentence.")
    mending: bool = strawberry.field(description="Somebody has asked to mend it; follow `policyRollout`.")
    target: PolicyTarget | None = one_of_types(
        {
            Account: {"id": "account_id"},
            AccountType: {"id": "account_type_id"},
            Tenancy: {"id": "target_tenancy_id"},
        },
        description="Of DETACHED and ATTACHED_ELSEWHERE; null for one that Freehold does not know.",
    )
    aws_target_id: str | None = computed(
        "nullif({row}.aws_target_id, '')", description="The id of the target in AWS: `r-...`, `ou-...` or a number."
    )
    name: str | None = strawberry.field(description="Of the policy in AWS, for DOCUMENT_CHANGED; so are the next two.")
    description: str | None
    document: JSON | None


@strawberry.type(description="A policy that reaches an account, and the way by which it does.")
@table(models.EffectivePolicy)
class EffectivePolicy:
    policy: Policy = to_one(on={"id": "policy_id"})
    attachment: PolicyAttachment = to_one(on={"id": "attachment_id"})
    via: Via
    state: AttachmentState = strawberry.field(description="Of the attachment: in force when ACTIVE or DETACHING.")


@strawberry.type(
    description=(
        "One change of a policy or of one of its attachments. The own fields of `policy` and `attachment` are as they"
        " were right after it; what is reached through them is as it is now."
    )
)
@table(models.PolicyEvent)
class PolicyEvent:
    sequence: int = strawberry.field(description="1, 2, 3... for each policy, without a gap.")
    at: datetime
    policy: Policy = snapshot("policy", description="As it was; its `attachments`, `versions` and `drift` are of now.")
    attachment: PolicyAttachment | None = snapshot(
        "attachment", description="The attachment that changed, as it was; null when the policy itself did."
    )


@strawberry.input(one_of=True, description="Which policy.")
class PolicyBy:
    id: strawberry.ID | None = condition("{row}.id = {value}", "uuid", convert=lambda value: decode(value, "pol"))
    name: str | None = condition("lower({row}.name) = lower({value})", "text", description="Whatever the case.")


@strawberry.input
class PolicyFilter:
    managed: bool | None = condition("{row}.managed = {value}", "boolean")
    search: str | None = contains("name", "description", description="Part of the name or description.")


class PolicyOrderField(StrEnum):
    NAME = "NAME"
    CREATED_AT = "CREATED_AT"


expose(PolicyOrderField, "What policies are ordered by.", NAME="The name, whatever the case.")


@strawberry.input
class PolicyOrder:
    field: PolicyOrderField
    direction: OrderDirection


ORDERS = {
    PolicyOrderField.NAME: SortKey("lower({row}.name)", "text"),
    PolicyOrderField.CREATED_AT: SortKey("{row}.created_at", "timestamptz"),
}
