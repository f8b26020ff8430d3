"""The subscriptions that follow one account or all of a tenancy, event by event.

All are followed by one number for the tenancy: numbers per account would be 10,000 of them for a client to bring back.
It is given at the commit (migration 0009), as ids of transactions, given when these begin, can turn an account's order.
"""

from collections.abc import AsyncIterator
from typing import Annotated

import strawberry
from strawberry.types import Info

from server.accounts.types import Account, AccountFilter
from server.assurance.types import AccountChange, SetupEvent
from server.context import Context
from server.graphql.errors import ErrorCode, coded
from server.graphql.feeds import Feed, check_number, check_seen, followed_id
from server.planner import check_filter, read_number
from server.tenancies.types import Tenancy


@strawberry.type
class AssuranceSubscription:
    @strawberry.subscription(  # type: ignore[untyped-decorator] # Strawberry types it only without a call
        description="Every event of the account's setups after number `after`, then live: each once, in order, no gap."
    )
    async def account_setup(
        self, info: Info[Context, None], account_id: strawberry.ID, after: int | None = 0
    ) -> AsyncIterator[SetupEvent]:
        # The checks come before the stream begins, so that their errors end the operation and say where they belong.
        cursor = after or 0
        check_number(cursor)
        key = followed_id(account_id, "acc")
        last = await read_number(info, Account, {"id": key}, "lastSequence")
        if last is None:
            raise coded(ErrorCode.NOT_FOUND, "There is no account with this id.")
        check_seen(cursor, last, "event of this account is number")
        return Feed(info, SetupEvent, ("account_id", key), cursor=cursor, last=last)

    @strawberry.subscription(  # type: ignore[untyped-decorator] # as above
        description=(
            "Every change of every account of the tenancy after position `after`, then live: each once, no gap, those"
            " of one account in their order. Without `after` only what changes from now on. For a list that stays"
            " live, read `tenancy { lastPosition }` and the accounts in one query and follow what is after it. With a"
            " `filter` only the changes after which an account matches it, and those with which it ceases to, which"
            " `matches` tells apart: positions then increase, but with gaps."
        )
    )
    async def accounts_changed(
        self,
        info: Info[Context, None],
        after: int | None = None,
        # Read by the planner, as that of `accounts` is.
        filter: Annotated[
            AccountFilter | None,
            strawberry.argument(description="As in `accounts`: every field given must hold."),
        ] = None,
    ) -> AsyncIterator[AccountChange]:
        check_number(after or 0)
        check_filter(info)
        last = await read_number(info, Tenancy, {}, "lastPosition") or 0
        check_seen(after or 0, last, "change of this tenancy is at position")
        return Feed(info, AccountChange, None, cursor=last if after is None else after, last=last)
