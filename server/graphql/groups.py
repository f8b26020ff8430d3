"""Fan-out: subscribers that are sent the same share one read from PostgreSQL and one text for each event.

A group stands behind number `cursor` of its feed. A member whose own number is not behind that is live: whatever the
group reads from then on comes after it, so nothing is missed, and what the member has seen already is left out. A
member that is behind reads alone, as fast as its client takes it, until it has caught up. Between finding that it has
and being live nothing is awaited.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from typing import Any

from server.graphql.feeds import BATCH, Feed
from server.outages import cause_of, is_away
from server.planner import ListPlan
from server.sockets import Post, text_frame

# How many are sent an event before the event loop sees to others: some 5 ms.
AT_A_TIME = 400

logger = logging.getLogger(__name__)


class Member:
    """One operation of one client. `cursor` is the number of the last event that was sent to it or left out.

    Live events go to `post`, which never waits. `cannot` is called when the group can read no more: the member has to
    go on alone after its cursor.
    """

    __slots__ = ("beginning", "cannot", "cursor", "group", "post")

    def __init__(self, operation_id: str, cursor: int, post: Post, cannot: Callable[[], None]) -> None:
        # Of each message: `{"id":"1","type":"next","payload":{"data":{"field":` and then the event.
        self.beginning = f'{{"id":{json.dumps(operation_id)},"type":"next","payload":{{"data":{{'.encode()
        self.cursor = cursor
        self.post = post
        self.cannot = cannot
        self.group: Group | None = None

    def message(self, event: bytes) -> bytes:
        """The message with a member of `data`."""
        return b"%b%b}}}" % (self.beginning, event)

    def leave(self) -> None:
        """Be sent nothing more; may be called at any time."""
        if self.group is not None:
            self.group.remove(self)
            self.group = None


class Group:
    """Subscribers of one feed. Closes itself when the last has left."""

    def __init__(self, feed: Feed[Any], plan: ListPlan, closed: Callable[[], None]) -> None:
        self.cursor = max(feed.last, feed.cursor)
        self._feed = feed
        self._plan = plan
        self._closed = closed
        self._key = json.dumps(feed.response_key).encode() + b":"
        self._live: set[Member] = set()
        # Those that catch up, too.
        self._members: set[Member] = set()
        self._task = asyncio.create_task(self._run(), name="group")

    @property
    def live(self) -> int:
        """How many members get its events as it reads them."""
        return len(self._live)

    def add(self, member: Member) -> None:
        member.group = self
        self._members.add(member)

    def remove(self, member: Member) -> None:
        self._members.discard(member)
        self._live.discard(member)
        if not self._members:
            self._task.cancel()
            self._closed()

    def admit(self, member: Member) -> bool:
        """Make a member live if it has caught up."""
        if member.cursor < self.cursor:
            return False
        self._live.add(member)
        return True

    async def catch_up(self, member: Member, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send a member of this group what it has not seen, until it is live or has left."""
        if self.admit(member):
            return
        async with self._feed.registered(member.cursor) as reader:
            while member.group is self and not self.admit(member):
                try:
                    events = await self._read(member.cursor)
                except Exception as error:
                    if not is_away(error):
                        raise
                    # The hub wakes everybody when PostgreSQL is back.
                    await reader.wait()
                    continue
                for number, event in events:
                    if event is not None:
                        await send(member.message(event))
                    reader.cursor = member.cursor = number
                if not events:
                    # What the group has read is no longer there.
                    member.cursor = self.cursor

    async def _run(self) -> None:
        try:
            async with self._feed.registered(self.cursor) as reader:
                while True:
                    await reader.wait()
                    async for number, event in self._unread():
                        reader.cursor = number
                        await self._send(number, event)
        except Exception as error:
            # The ordinary executor says what is wrong and where, to each in its own stream.
            logger.warning("Subscribers who share their events go on one by one: %s", cause_of(error))
            self._closed()
            for member in self._members.copy():
                member.leave()
                member.cannot()

    async def _unread(self) -> AsyncIterator[tuple[int, bytes | None]]:
        while True:
            try:
                events = await self._read(self.cursor)
            except Exception as error:
                if not is_away(error):
                    raise
                return
            for each in events:
                yield each
            if len(events) < BATCH:
                return

    async def _read(self, after: int) -> list[tuple[int, bytes | None]]:
        """The next events, with None for each that the filter leaves out."""
        return [(number, json and self._key + json) for number, json in await self._plan.read(after, BATCH)]

    async def _send(self, number: int, event: bytes | None) -> None:
        """Send an event to everybody who is live, or pass one over that is left out.

        Clients are not waited for, but others get their turn meanwhile.
        """
        self.cursor = number
        # Most clients number their operations alike.
        frames: dict[bytes, bytes] = {}
        for count, member in enumerate(self._live.copy(), start=1):
            if member.cursor < number and member.group is self:
                member.cursor = number
                if event is not None:
                    member.post(self._frame(frames, member, event))
            if count % AT_A_TIME == 0:
                await asyncio.sleep(0)
        # A hundred events that were read together are no reason to keep everybody else waiting.
        await asyncio.sleep(0)

    @staticmethod
    def _frame(frames: dict[bytes, bytes], member: Member, event: bytes) -> bytes:
        frame = frames.get(member.beginning)
        if frame is None:
            frame = frames[member.beginning] = text_frame(member.message(event))
        return frame


class Groups:
    """The groups of one endpoint."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, Group] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def join(self, feed: Feed[Any], plan: ListPlan, member: Member) -> Group:
        """The group of a feed with one more member, which has to catch up."""
        scope = feed.scope(plan)
        group = self._groups.get(scope)
        if group is None:

            def closed() -> None:
                if self._groups.get(scope) is made:
                    del self._groups[scope]

            group = made = self._groups[scope] = Group(feed, plan, closed)
        group.add(member)
        return group
