"""Root fields about account types."""

import strawberry

from server.account_types.types import (
    ORDERS,
    AccountType,
    AccountTypeBy,
    AccountTypeFilter,
    AccountTypeOrder,
    AccountTypeOrderField,
)
from server.graphql.connections import Connection
from server.planner.mapping import connection, lookup


@strawberry.type
class AccountTypeQuery:
    account_type: AccountType | None = lookup(AccountTypeBy, description="One account type; null when there is none.")
    account_types: Connection[AccountType] = connection(
        ORDERS,
        default=(AccountTypeOrderField.NAME, True),
        where="{row}.state <> 'DELETED'",
        filter=AccountTypeFilter,
        order_by=AccountTypeOrder,
        description="The account types of the tenancy, by name when no order is given. None that is deleted.",
    )
