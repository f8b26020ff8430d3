"""GraphQL types of tenancies."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from server.graphql.connections import Node
from server.graphql.scalars import expose
from server.planner.mapping import computed, table, to_many, to_one
from server.tenancies import models
from server.tenancies.models import TenancyState

if TYPE_CHECKING:
    from server.accounts.types import Account
    from server.policies.types import PolicyComparison, PolicyDrift
    from server.quotas.types import Quota

expose(
    TenancyState,
    "How far a tenancy has been set up.",
    INITIALIZING="Its organization and its foundation accounts are being made.",
    ACTIVE="Accounts can be created.",
)


@strawberry.type(description="One customer of this installation, which is one AWS Organization.")
@table(models.Tenancy, node="ten", tenancy="id")
class Tenancy(Node):
    name: str
    state: TenancyState
    aws_organization_id: str | None = strawberry.field(description="As in AWS, `o-...`; null until it exists.")
    home_region: str = strawberry.field(description="The AWS Region in which Freehold keeps what is not per Region.")
    regions: list[str] = strawberry.field(description="The AWS Regions that every account may use and is hardened in.")
    propagate_tags: bool = strawberry.field(
        description="Whether the tags of accounts are brought to AWS; `updateTenancy` switches that."
    )
    security: Annotated["Account", strawberry.lazy("server.accounts.types")] | None = to_one(
        on={"tenancy_id": "id"}, where={"role": "SECURITY"}, description="The account that holds the security services."
    )
    logging: Annotated["Account", strawberry.lazy("server.accounts.types")] | None = to_one(
        on={"tenancy_id": "id"}, where={"role": "LOGGING"}, description="The account that holds the logs."
    )
    quotas: list[Annotated["Quota", strawberry.lazy("server.quotas.types")]] = to_many(
        on={"tenancy_id": "id"}, order=("position",), description="What AWS limits of the organization."
    )
    last_position: int = computed(
        "coalesce((select last_position from event_counter where tenancy_id = {row}.id), 0)",
        description=(
            "The position of the last of `accountsChanged`; 0 before any. In one query with `accounts`, whatever is"
            " not in these yet comes after it."
        ),
    )
    policy_drift: list[Annotated["PolicyDrift", strawberry.lazy("server.policies.types")]] = to_many(
        on={"tenancy_id": "id"},
        order=("found_at", "policy_id", "kind", "aws_target_id"),
        description="What AWS has otherwise than policies are on record, oldest first.",
    )
    policies_checked_at: datetime | None = computed(
        "(select checked_at from policy_comparison where tenancy_id = {row}.id)",
        description=(
            "When the last comparison of policies with AWS that came to its end began: what was done there before that"
            " is in `policyDrift`, but for what `policyComparison { error }` tells. Null before the first."
        ),
    )
    policy_comparison: Annotated["PolicyComparison", strawberry.lazy("server.policies.types")] | None = to_one(
        on={"tenancy_id": "id"}, description="How the comparisons of policies with AWS go; null before any was due."
    )
