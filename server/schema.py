"""The whole GraphQL schema."""

import strawberry
from strawberry.schema.config import StrawberryConfig

from server.access.mutations import AccessMutation
from server.access.queries import AccessQuery
from server.account_types.mutations import AccountTypeMutation
from server.account_types.queries import AccountTypeQuery
from server.accounts.mutations import AccountMutation
from server.accounts.queries import AccountQuery
from server.assurance.batches import BatchMutation
from server.assurance.mutations import AssuranceMutation
from server.assurance.queries import AssuranceQuery
from server.assurance.subscriptions import AssuranceSubscription
from server.graphql import ids
from server.graphql.connections import Node
from server.graphql.scalars import SCALARS
from server.graphql.schema import Schema
from server.identity.queries import IdentityQuery
from server.planner import install
from server.planner.mapping import by_node_id
from server.policies.mutations import PolicyMutation
from server.policies.queries import PolicyQuery
from server.policies.subscriptions import PolicySubscription
from server.quotas.mutations import QuotaMutation
from server.tenancies.queries import TenancyQuery


@strawberry.type
class Query(AssuranceQuery, AccessQuery, PolicyQuery, AccountQuery, AccountTypeQuery, TenancyQuery, IdentityQuery):
    node: Node | None = by_node_id(
        ids.parse, description="Any object by its id; null when there is none, an error when the text is not an id."
    )


@strawberry.type
class Mutation(
    AssuranceMutation,
    BatchMutation,
    AccessMutation,
    PolicyMutation,
    AccountMutation,
    AccountTypeMutation,
    QuotaMutation,
):
    pass


@strawberry.type
class Subscription(AssuranceSubscription, PolicySubscription):
    pass


def build_schema() -> Schema:
    """The schema, ready to execute; `as_str()` is its SDL."""
    schema = Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
    )
    install(schema._schema)
    return schema


schema = build_schema()
