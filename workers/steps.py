"""Rows that AWS Organizations is kept in line with, one call after the other.

What is to be done is read from the row each time, and every call may be repeated: "already so" is success. So a worker
that dies anywhere leaves work that the next one finishes. A call is sent once, within the lease, and noted before:
while nobody knows whether AWS has heard it, no other one is sent that it could undo.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeAlias

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.leases import LeaseLost, R, StageError, StageErrorClass, wait_for_call
from server.tenancies.models import Tenancy
from workers.assurance.runner import PATIENCE, backoff, internal, is_database_away
from workers.assurance.stage import StageStopped
from workers.aws.errors import explain, is_outcome_unknown
from workers.aws.session import CALL_SECONDS, QUARANTINE_SECONDS, Aws, guard
from workers.aws.turns import organization_turn
from workers.executor import Interrupted
from workers.lease import Lease

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

QUARANTINE: Final = timedelta(seconds=QUARANTINE_SECONDS)

# What is written, by the holder of the lease, when AWS has answered.
Keep: TypeAlias = Callable[[AsyncSession, R], Awaitable[None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step(Generic[R]):
    """A call to AWS about a row; it returns what is to be written then. It changes AWS once at most."""

    call: Callable[["OrganizationsClient"], Awaitable[Keep[R]]]
    # As they were when the step was chosen.
    row: R
    tenancy: Tenancy
    # The row for a log line: what it is, its name, and the id that the API shows.
    label: str
    # What the messages of the table of AWS's errors may name.
    facts: Mapping[str, str]
    # Writes an error down: takes session and row, `error` and `delay`.
    keep_error: Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What is to be written of a call, and whether it is known what AWS has made of it."""

    keep: Keep[R]
    is_known: bool = True


class Steps(Generic[R]):
    """Takes the steps of one kind of row with the clients of one worker.

    `next_step` says what to ask of AWS next. With None it has seen to it that the lease is given up.
    """

    def __init__(
        self, engine: AsyncEngine, aws: Aws, next_step: Callable[[AsyncSession, R], Awaitable[Step[R] | None]]
    ) -> None:
        self._engine = engine
        self._aws = aws
        self._next_step = next_step

    async def run(self, lease: Lease[R]) -> None:
        """Work until there is nothing more to do about the row, or an error has to pass first.

        Raises LeaseLost, Interrupted when the lease is to be given back, or what PostgreSQL raises while it is away.
        """
        guard.set(lambda action: lease.check(margin=0.0 if _only_reads(action) else CALL_SECONDS))
        async with lease.write() as (session, row):
            step = await self._next(lease, session, row)
        while step is not None:
            if lease.wanted_back:
                raise Interrupted
            outcome = await self._take(lease, step)
            async with lease.write() as (session, row):
                if outcome.is_known:
                    row.called_at = None
                await outcome.keep(session, row)
                step = await self._next(lease, session, row)

    async def _next(self, lease: Lease[R], session: AsyncSession, row: R) -> Step[R] | None:
        if row.lease_until is not None and await wait_for_call(session, row, QUARANTINE):
            until = row.next_attempt_at
            logger.info("%s waits until %s, as a call without an answer may reach AWS until then", lease, until)
            return None
        return await self._next_step(session, row)

    async def _take(self, lease: Lease[R], step: Step[R]) -> Outcome[R]:
        try:
            async with (
                organization_turn(self._engine, self._aws, step.tenancy.id),
                self._aws.client("organizations", step.tenancy.home_region, once=True) as organizations,
            ):
                await lease.renew(called_at=func.clock_timestamp())
                return Outcome(await step.call(organizations))
        except Exception as error:
            return self._stopped(step, error)

    def _stopped(self, step: Step[R], error: Exception) -> Outcome[R]:
        """What is to be written about the error; raises it again when nothing can or need be."""
        attempts = step.row.attempts + 1
        told = understood(error, step.facts, attempts, step.label)
        logger.warning("%s: %s", step.label, told)
        is_known = not is_outcome_unknown(error)
        delay = backoff(attempts) if is_known else max(backoff(attempts), QUARANTINE)
        return Outcome(partial(step.keep_error, error=told, delay=delay), is_known)


def understood(error: Exception, facts: Mapping[str, str], attempts: int, label: str) -> StageError:
    """What is to be written about the error, the `attempts`-th in a row; raises it again if nothing can or need be."""
    if isinstance(error, LeaseLost) or is_database_away(error):
        raise error
    told = error.error if isinstance(error, StageStopped) else explain(error, facts)
    if told is None:
        logger.error("%s: this error was met", label, exc_info=error)
        told = internal(error)
    if attempts >= PATIENCE.get(told.code, attempts + 1):
        told = replace(told, error_class=StageErrorClass.NEEDS_PERSON)
    return told


def _only_reads(action: str) -> bool:
    """Whether the IAM action changes nothing, so that nothing is lost when the lease does not outlast it."""
    return action.partition(":")[2].startswith(("Describe", "List"))
