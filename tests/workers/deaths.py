"""Workers that die: at every place of their work, one after the other."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from workers.lease import Lease


class Killed(BaseException):
    """What no code of a worker catches: it ends as if its process did, but for what PostgreSQL rolls back itself."""


class Death:
    """Counts the places at which a worker can die, and lets it die at the one with number `at`."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed: list[str] = []

    def reach(self, place: str) -> None:
        self.passed.append(place)
        if len(self.passed) == self.at:
            raise Killed(place)


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, organizations: Any, death: Death, calls: Sequence[str]) -> Iterator[None]:
    """Places before and after each of these calls, and before and after every commit under a lease."""
    write = Lease.write

    @asynccontextmanager
    async def wrapped(self: Lease[Any]) -> AsyncIterator[tuple[AsyncSession, Any]]:
        async with write(self) as both:
            yield both
            death.reach("uncommitted")
        death.reach("committed")

    handlers = {
        f"{moment}.organizations.{call}": lambda moment=moment, call=call, **_: death.reach(f"{moment} {call}")
        for call in calls
        for moment in ("before-call", "after-call")
    }
    events = organizations.meta.events
    with monkeypatch.context() as patched:
        patched.setattr(Lease, "write", wrapped)
        for name, handler in handlers.items():
            events.register(name, handler)
        try:
            yield
        finally:
            for name, handler in handlers.items():
                events.unregister(name, handler)
