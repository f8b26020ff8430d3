"""GraphQL types of policies and their attachments."""

from enum import StrEnum
from typing import Annotated

import strawberry
from strawberry.scalars import JSON

from server.account_types.types import AccountType
from server.accounts.types import Account
from server.graphql.connections import Node, OrderDirection
from server.graphql.ids import decode
from server.graphql.scalars import expose
from server.planner.mapping import SortKey, condition, contains, one_of_types, table, to_many, to_one
from server.policies import models
from server.policies.models import AttachmentState, PolicyState
from server.tenancies.types import Tenancy

expose(
    PolicyState,
    "How far a policy has come in AWS.",
    PENDING="Not in AWS yet.",
    ACTIVE="As in AWS.",
    FAILED="AWS has refused it.",
)
expose(
    AttachmentState,
    "How far an attachment has come in AWS.",
    PENDING="Not in AWS yet.",
    ACTIVE="In force.",
    DETACHING="Still in force; being removed.",
    FAILED="AWS has refused it.",
)

PolicyTarget = Annotated[
    Tenancy | AccountType | Account, strawberry.union("PolicyTarget", description="What a policy can be attached to.")
]


@strawberry.type(description="A service control policy: what nobody in the accounts it reaches may do.")
@table(models.Policy, node="pol")
class Policy(Node):
    name: str = strawberry.field(description="Unique in the tenancy, whatever the case.")
    description: str
    document: JSON = strawberry.field(description="The policy in the grammar of AWS, as its author wrote it.")
    managed: bool = strawberry.field(description="Freehold's own, which nobody may change.")
    state: PolicyState
    attachments: list["PolicyAttachment"] = to_many(
        on={"policy_id": "id"}, order=("created_at", "id"), description="Oldest first."
    )


@strawberry.type(description="A policy on its target.")
@table(models.PolicyAttachment, node="att")
class PolicyAttachment(Node):
    policy: Policy = to_one(on={"id": "policy_id"})
    target: PolicyTarget = one_of_types(
        {Account: {"id": "account_id"}, AccountType: {"id": "account_type_id"}, Tenancy: {"id": "tenancy_id"}},
        description="The tenancy stands for all of its accounts.",
    )
    state: AttachmentState


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
