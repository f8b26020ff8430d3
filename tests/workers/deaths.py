"""Workers that die: at every place of their work, one after the other."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tests.workers.world import World
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
def dying(
    monkeypatch: pytest.MonkeyPatch, clients: Sequence[Any], death: Death, calls: Sequence[str]
) -> Iterator[None]:
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
    with monkeypatch.context() as patched:
        patched.setattr(Lease, "write", wrapped)
        for client, (name, handler) in product(clients, handlers.items()):
            client.meta.events.register(name, handler)
        try:
            yield
        finally:
            for client, (name, handler) in product(clients, handlers.items()):
                client.meta.events.unregister(name, handler)


Work = Callable[[UUID], Awaitable[object]]


async def die_everywhere(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    calls: Sequence[str],
    *,
    arrange: Callable[[], Awaitable[UUID]],
    work: Work,
    carry_on: Work,
    end: Work,
) -> list[str]:
    """For every place there is in `work`: a worker dies there, another one carries on, and `end` looks. The places."""
    async with (
        world.aws.client("organizations", "us-east-1") as patient,
        world.aws.client("organizations", "us-east-1", once=True) as once,
    ):
        for at in range(1, 100):
            row_id, death = await arrange(), Death(at)
            try:
                with dying(monkeypatch, (patient, once), death, calls):
                    await work(row_id)
            except Killed:
                await carry_on(row_id)
                await end(row_id)
            else:
                await end(row_id)
                return death.passed
    raise AssertionError("there is no end to the places")
