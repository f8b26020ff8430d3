"""Faults put into the product on purpose: `--self-test` demands that a run with any of them fails.

The processes that the nursery forks have the fault that the environment variable CHAOS_MUTANT names.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from arq.worker import Worker
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.assurance import requests
from server.assurance.models import Setup
from server.assurance.service import hold
from server.leases import LeaseLost
from workers.assurance.stages import create_account
from workers.setups import SETUP

VARIABLE = "CHAOS_MUTANT"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`found_as` is in the report of a run that has found it."""

    title: str
    install: Callable[[], None]
    found_as: str


def end_without_redis() -> None:
    work = Worker.async_run

    async def ending(self: Worker) -> None:
        try:
            await work(self)
        except Exception:
            os._exit(1)

    _replace(Worker, "async_run", ending)


def skip_the_quarantine() -> None:
    _replace(create_account, "QUARANTINE_SECONDS", 0.0)


def write_without_the_token() -> None:
    async def held_by_anybody(session: AsyncSession, setup_id: UUID, _: int) -> Setup:
        current = await session.scalar(select(Setup.lease_token).where(Setup.id == setup_id))
        if current is None:
            raise LeaseLost
        return await hold(session, setup_id, current)

    # It is frozen.
    object.__setattr__(SETUP, "hold", held_by_anybody)


def forget_idempotency_keys() -> None:
    async def always(*arguments: Any) -> UUID:
        work: Callable[[], Awaitable[UUID]] = arguments[-1]
        return await work()

    _replace(requests, "once", always)


MUTANTS: Mapping[str, Mutant] = {
    "redis": Mutant("a worker ends when Redis is away", end_without_redis, "ended by itself"),
    "quarantine": Mutant("an unknown outcome is not waited for", skip_the_quarantine, "called again"),
    "fencing": Mutant("the token is not compared", write_without_the_token, "written under lease"),
    "keys": Mutant("idempotency keys are not looked at", forget_idempotency_keys, "was refused"),
}


def _replace(place: Any, name: str, value: object) -> None:
    """Raises AttributeError for a name that the product has given up: a fault that is none would not be found."""
    getattr(place, name)
    setattr(place, name, value)


def install() -> None:
    """Put the fault into this process and all it forks, if the environment names one."""
    if name := os.environ.get(VARIABLE):
        MUTANTS[name].install()
