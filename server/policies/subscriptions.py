"""The subscription that follows the rollout of one policy, event by event."""

from collections.abc import AsyncIterator

import strawberry
from strawberry.types import Info

from server.context import Context
from server.graphql.errors import ErrorCode, coded
from server.graphql.feeds import Feed, check_number, check_seen, followed_id
from server.planner import read_greatest
from server.policies.types import PolicyEvent


@strawberry.type
class PolicySubscription:
    @strawberry.subscription(  # type: ignore[untyped-decorator] # Strawberry types it only without a call
        description=(
            "Every event of the policy and its attachments after number `after`, then live: each once, in order, no"
            " gap. A policy that is gone can still be followed to its last event."
        )
    )
    async def policy_rollout(
        self, info: Info[Context, None], policy_id: strawberry.ID, after: int | None = 0
    ) -> AsyncIterator[PolicyEvent]:
        # The checks come before the stream begins, so that their errors end the operation and say where they belong.
        cursor = after or 0
        check_number(cursor)
        key = followed_id(policy_id, "pol")
        # Its events outlive it, so they say whether there ever was one.
        last = await read_greatest(info, PolicyEvent, {"policy_id": key}, "sequence")
        if last is None:
            raise coded(ErrorCode.NOT_FOUND, "There is no policy with this id.")
        check_seen(cursor, last, "event of this policy is number")
        return Feed(info, PolicyEvent, ("policy_id", key), cursor=cursor, last=last)
