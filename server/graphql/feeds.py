"""Feeds: numbered events as the source of a subscription, replayed from a number and then live."""

from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Generic, TypeVar
from uuid import UUID

from strawberry.types import Info

from server.context import Context
from server.graphql.errors import ErrorCode, coded
from server.graphql.hub import Subscription as Reading
from server.graphql.ids import InvalidId, decode
from server.outages import is_away
from server.planner import ListPlan, plan_list, read_list

BATCH = 100

T = TypeVar("T")


class Feed(AsyncIterator[T], Generic[T]):
    """Events after `cursor` as rows of `type_`: each once, in order, no gap.

    They are those whose column `of` names what is followed, an account or a policy, numbered by their `sequence` there;
    without `of` they are all of the viewer's tenancy, by their `position` in it.

    What the field's argument `filter` leaves out moves `cursor` as well, so that it is read no second time.

    A resolver returns it as the source of its subscription. Over a WebSocket those who ask for the same join one group;
    whoever else iterates it reads alone. `last` is the number of an event that was there when the viewer was let in.
    """

    def __init__(
        self, info: Info[Context, Any], type_: type[T], of: tuple[str, UUID] | None, *, cursor: int, last: int
    ) -> None:
        self.cursor = cursor
        self.last = last
        self.response_key = info.path.key
        self._info = info
        self._type = type_
        self._followed = None if of is None else of[1]
        self._where = dict([] if of is None else [of])
        self._number = "position" if of is None else "sequence"
        self._events: AsyncGenerator[T, None] | None = None

    def plan(self) -> ListPlan | None:
        """How PostgreSQL builds the events' JSON; None when the ordinary executor has to."""
        return plan_list(self._info, self._type, self._where, after=self._number)

    def scope(self, plan: ListPlan) -> Hashable:
        """Equal for feeds whose subscribers are sent the same."""
        return plan.key, self._info.context.viewer.role, self._followed, self.response_key

    def registered(self, cursor: int) -> AbstractAsyncContextManager[Reading]:
        """A reader at the hub of what is followed."""
        context = self._info.context
        return context.hub.subscription(context.viewer.tenancy_id, self._followed, cursor)

    def __aiter__(self) -> "Feed[T]":
        return self

    async def __anext__(self) -> T:
        if self._events is None:
            self._events = self._read_alone()
        return await anext(self._events)

    async def aclose(self) -> None:
        if self._events is not None:
            await self._events.aclose()

    async def _read_alone(self) -> AsyncGenerator[T, None]:
        async with self.registered(self.cursor) as reader:
            while True:
                await reader.wait()
                async with aclosing(self._unread(reader)) as events:
                    async for event in events:
                        yield event

    async def _unread(self, reader: Reading) -> AsyncGenerator[T, None]:
        """The events after the reader's cursor, which moves with each that is handed over."""
        while True:
            try:
                after = (self._number, reader.cursor)
                events = await read_list(self._info, self._type, self._where, after=after, limit=BATCH)
            except Exception as error:
                if not is_away(error):
                    raise
                # The hub wakes everybody when PostgreSQL is back.
                return
            for number, event in events:
                reader.cursor = self.cursor = number
                if event is not None:
                    yield event
            if len(events) < BATCH:
                return


def followed_id(id_: str, prefix: str) -> UUID:
    """The UUID of the id of what is to be followed; raises the error that the client sees."""
    try:
        return decode(id_, prefix)
    except InvalidId as error:
        raise coded(ErrorCode.VALIDATION, str(error)) from None


def check_number(after: int) -> None:
    """Refuse what is no number of an event; raises the error that the client sees."""
    if after < 0:
        raise coded(ErrorCode.VALIDATION, "`after` is the number of an event that was read, or 0 for all of them.")


def check_seen(after: int, last: int, what: str) -> None:
    """Refuse a number that no event has yet; raises the error that the client sees."""
    if after > last:
        raise coded(ErrorCode.VALIDATION, f"`after` is {after}, but the last {what} {last}.")
