"""Root fields about accounts."""

import strawberry

from server.accounts.types import (
    COUNTERS,
    ORDERS,
    TAG_KEY_ORDERS,
    Account,
    AccountBy,
    AccountFilter,
    AccountOrder,
    AccountOrderField,
    TagKey,
)
from server.graphql.connections import Connection
from server.planner.mapping import connection, lookup


@strawberry.type
class AccountQuery:
    account: Account | None = lookup(AccountBy, description="One account; null when there is none.")
    accounts: Connection[Account] = connection(
        ORDERS,
        default=(AccountOrderField.CREATED_AT, False),
        filter=AccountFilter,
        order_by=AccountOrder,
        counters=COUNTERS,
        description="The accounts of the tenancy, newest first when no order is given.",
    )
    tag_keys: Connection[TagKey] = connection(
        TAG_KEY_ORDERS,
        default=("KEY", True),
        description="The keys of the tags that accounts have, in their order; `accounts` finds those of each.",
    )
