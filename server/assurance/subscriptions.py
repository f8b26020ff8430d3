"""The subscriptions that follow one account or all of a tenancy, event by event.

All are followed by one number for the tenancy: numbers per account would be 10,000 of them for a client to bring back.
It is given at the commit (migration 0009), as ids of transactions, given when these begin, can turn an account's order.
"""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry.types import Info

from server.accounts.types import Account, AccountFilter
from server.assurance.types import AccountChange, SetupEvent
from server.context import Context
from server.graphql.errors import ErrorCode, coded
from server.graphql.feeds import Feed
from server.graphql.ids import InvalidId, decode
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
        key, last = await _existing_account(info, account_id, cursor)
        return Feed(info, SetupEvent, key, cursor=cursor, last=last)

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
        _check_number(after or 0)
        check_filter(info)
        last = await read_number(info, Tenancy, {}, "lastPosition") or 0
        _check_seen(after or 0, last, "change of this tenancy is at position")
        return Feed(info, AccountChange, None, cursor=last if after is None else after, last=last)


async def _existing_account(info: Info[Context, None], account_id: str, after: int) -> tuple[UUID, int]:
    """The account's key and its last event's number, if it is the viewer's; raises the error that the client sees."""
    _check_number(after)
    try:
        key = decode(account_id, "acc")
    except InvalidId as error:
        raise coded(ErrorCode.VALIDATION, str(error)) from None
    last = await read_number(info, Account, {"id": key}, "lastSequence")
    if last is None:
        raise coded(ErrorCode.NOT_FOUND, "There is no account with this id.")
    _check_seen(after, last, "event of this account is number")
    return key, last


def _check_number(after: int) -> None:
    if after < 0:
        raise coded(ErrorCode.VALIDATION, "`after` is the number of an event that was read, or 0 for all of them.")


def _check_seen(after: int, last: int, what: str) -> None:
    if after > last:
        raise coded(ErrorCode.VALIDATION, f"`after` is {after}, but the last {what} {last}.")
