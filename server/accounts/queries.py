"""Root fields about accounts."""

import strawberry

from server.accounts.types import COUNTERS, ORDERS, Account, AccountBy, AccountFilter, AccountOrder, AccountOrderField
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
