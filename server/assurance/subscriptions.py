"""The subscription that follows the setups of one account, event by event."""

from collections.abc import AsyncIterator
from uuid import UUID

import strawberry
from strawberry.types import Info

from server.accounts.types import Account
from server.assurance.types import SetupEvent
from server.context import Context
from server.graphql.errors import ErrorCode, coded
from server.graphql.feeds import Feed
from server.graphql.ids import InvalidId, decode
from server.planner import read_number


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


async def _existing_account(info: Info[Context, None], account_id: str, after: int) -> tuple[UUID, int]:
    """The account's key and its last event's number, if it is the viewer's; raises the error that the client sees."""
    if after < 0:
        raise coded(ErrorCode.VALIDATION, "`after` is the number of an event that was read, or 0 for all of them.")
    try:
        key = decode(account_id, "acc")
    except InvalidId as error:
        raise coded(ErrorCode.VALIDATION, str(error)) from None
    last = await read_number(info, Account, {"id": key}, "last_seq")
    if last is None:
        raise coded(ErrorCode.NOT_FOUND, "There is no account with this id.")
    if after > last:
        raise coded(ErrorCode.VALIDATION, f"`after` is {after}, but the last event of this account is number {last}.")
    return key, last
