"""Root fields about policies."""

import strawberry

from server.graphql.connections import Connection
from server.planner.mapping import connection, lookup
from server.policies.types import ORDERS, Policy, PolicyBy, PolicyFilter, PolicyOrder, PolicyOrderField


@strawberry.type
class PolicyQuery:
    policy: Policy | None = lookup(PolicyBy, description="One policy; null when there is none.")
    policies: Connection[Policy] = connection(
        ORDERS,
        default=(PolicyOrderField.NAME, True),
        filter=PolicyFilter,
        order_by=PolicyOrder,
        description="The policies of the tenancy, by name when no order is given.",
    )
