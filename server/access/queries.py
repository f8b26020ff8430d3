"""Root fields about groups and users."""

import strawberry

from server.access.types import (
    GROUP_ORDERS,
    USER_ORDERS,
    Group,
    GroupBy,
    GroupFilter,
    GroupOrder,
    GroupOrderField,
    User,
    UserBy,
    UserFilter,
    UserOrder,
    UserOrderField,
)
from server.graphql.connections import Connection
from server.planner.mapping import connection, lookup


@strawberry.type
class AccessQuery:
    group: Group | None = lookup(GroupBy, description="One group; null when there is none.")
    groups: Connection[Group] = connection(
        GROUP_ORDERS,
        default=(GroupOrderField.NAME, True),
        filter=GroupFilter,
        order_by=GroupOrder,
        description="The groups of the tenancy, by name when no order is given.",
    )
    user: User | None = lookup(UserBy, description="One user; null when there is none.")
    users: Connection[User] = connection(
        USER_ORDERS,
        default=(UserOrderField.NAME, True),
        filter=UserFilter,
        order_by=UserOrder,
        description="The users of the tenancy, by name when no order is given.",
    )
