"""Walks the stages of a setup: check, apply, check, and what becomes of each error."""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.assurance.models import OVER, Event, Setup, StageStatus
from server.assurance.models import Stage as StageRow
from server.assurance.service import complete_stage, fail_stage, start_stage, wait_stage
from server.database import transaction
from server.leases import LeaseLost, StageError, StageErrorClass
from server.outages import is_away
from server.roles import DatabaseRefused
from workers.assurance.run import Run, load_run
from workers.assurance.stage import Finding, FindingStatus, Stage, StageStopped, wait
from workers.aws.errors import CREDENTIALS_EXPIRED, NOT_READY, explain
from workers.aws.session import Aws, guard
from workers.executor import Interrupted
from workers.lease import Lease

INTERNAL = "INTERNAL"
NOT_IN_EFFECT = "NOT_IN_EFFECT"
STAGE_UNKNOWN = "STAGE_UNKNOWN"
# How often an error in a row is taken for passing, by its code; a retry by somebody allows as many again.
PATIENCE = {
    INTERNAL: 5,
    NOT_IN_EFFECT: 8,
    # Ten minutes or so: an upgrade replaces one worker after the other.
    STAGE_UNKNOWN: 15,
    **dict.fromkeys(CREDENTIALS_EXPIRED, 2),
    **dict.fromkeys(NOT_READY, 10),
}
# What somebody has to do when it did not pass; for the other codes of PATIENCE the error is PERMANENT.
REMEDIES = {
    STAGE_UNKNOWN: (
        "No worker that knows this stage has taken up the setup. Run workers of the version that requested it, or "
        "later, and retry the setup."
    ),
    **dict.fromkeys(
        CREDENTIALS_EXPIRED,
        "The credentials Freehold itself runs with have expired. Give the worker valid ones and retry the setup.",
    ),
}
LONGEST_BACKOFF_SECONDS = 60.0

logger = logging.getLogger(__name__)


class Runner:
    """Runs setups with these stages. A setup follows its own rows, which may name stages of another version."""

    def __init__(self, engine: AsyncEngine, aws: Aws, stages: Sequence[Stage]) -> None:
        self._engine = engine
        self._aws = aws
        self._stages = {stage.name: stage for stage in stages}

    async def run(self, lease: Lease[Setup]) -> None:
        """Work until the setup has finished, failed or waits.

        Raises LeaseLost, Interrupted when the lease is to be given back, or what PostgreSQL raises while it is away.
        """
        guard.set(lambda _action: lease.check())
        for row in await self._rows(lease):
            if row.status in OVER:
                continue
            if lease.wanted_back:
                raise Interrupted
            if not await self._advance(lease, row):
                return

    async def _rows(self, lease: Lease[Setup]) -> Sequence[StageRow]:
        rows = select(StageRow).where(StageRow.setup_id == lease.row_id).order_by(StageRow.position)
        async with transaction(self._engine) as session:
            return (await session.scalars(rows)).all()

    async def _advance(self, lease: Lease[Setup], row: StageRow) -> bool:
        """Bring one stage as far as it goes; returns whether it completed."""
        async with lease.write() as (session, setup):
            await start_stage(session, setup, row.position)
            now = await session.get_one(StageRow, (row.setup_id, row.position), populate_existing=True)
        assert now.started_at is not None, "start_stage has just set it"
        run = await load_run(self._engine, self._aws, lease, now.started_at)
        try:
            await assure(self._stage(row.name), run)
        except Exception as error:
            stopped = self._stopped(error, run, now)
            await self._stop(run, now, stopped)
            if stopped.error.code == INTERNAL:
                logger.error("account %s: stage %s met this error", run.label, row.name, exc_info=error)
            return False
        async with lease.write() as (session, setup):
            finished = await complete_stage(session, setup, row.position)
        if finished:
            logger.info("account %s: %s is complete", run.label, lease)
        return True

    def _stage(self, name: str) -> Stage:
        if name not in self._stages:
            raise wait(
                STAGE_UNKNOWN,
                "A worker of this version does not know the stage, as may be during an upgrade; the setup waits for "
                "one that does.",
            )
        return self._stages[name]

    def _stopped(self, error: Exception, run: Run, row: StageRow) -> StageStopped:
        """What the error means for the stage; raises it again when nothing can or need be written about it."""
        if isinstance(error, StageStopped):
            return error
        if isinstance(error, LeaseLost) or is_database_away(error):
            raise error
        refusal = explain(error, {"name": run.account.name, "email": run.account.email})
        if refusal is None:
            refusal = internal(error)
        if refusal.code in CREDENTIALS_EXPIRED and run.account.aws_account_id is not None:
            self._aws.forget(run.account.aws_account_id)
            # `row` still holds the error of the attempt before this one.
            return StageStopped(refusal, None if row.error_code in CREDENTIALS_EXPIRED else timedelta(0))
        return StageStopped(refusal)

    async def _stop(self, run: Run, row: StageRow, stopped: StageStopped) -> None:
        async with run.lease.write() as (session, setup):
            error = await _out_of_patience(session, run, row, stopped.error)
            waits = error.error_class is StageErrorClass.TRANSIENT
            if waits:
                delay = backoff(row.attempts) if stopped.delay is None else stopped.delay
                await wait_stage(session, setup, row.position, error, delay)
            else:
                await fail_stage(session, setup, row.position, error)
        logger.log(
            logging.INFO if waits else logging.WARNING,
            "account %s: stage %s %s: %s",
            run.label,
            row.name,
            "waits" if waits else "failed",
            error,
        )


def internal(error: Exception) -> StageError:
    """What is told of an error that is Freehold's own; the caller logs it."""
    message = f"Freehold met an error of its own ({type(error).__name__}); the worker's log has the details."
    return StageError(INTERNAL, message, StageErrorClass.TRANSIENT)


def is_database_away(error: Exception) -> bool:
    """An OSError may as well be about a file of the AWS SDK; where PostgreSQL is behind it, writing it down fails."""
    is_of_database = isinstance(
        error, SQLAlchemyError | asyncpg.PostgresError | asyncpg.InterfaceError | DatabaseRefused
    )
    return is_of_database and is_away(error)


async def _out_of_patience(session: AsyncSession, run: Run, row: StageRow, error: StageError) -> StageError:
    """The error as one that does not pass, if the stage has met it as often in a row as PATIENCE allows."""
    patience = PATIENCE.get(error.code)
    if patience is None or row.error_code != error.code or row.attempts < patience:
        return error
    # Where earlier attempts ended; a retry by somebody begins with a stage that is PENDING.
    status, code = Event.stage["status"].astext, Event.stage["error_code"].astext
    ends = (
        select(status, code)
        .where(
            Event.account_id == run.account.id,
            Event.setup["id"].astext == str(row.setup_id),
            Event.stage["position"].astext == str(row.position),
            status != StageStatus.RUNNING,
        )
        .order_by(Event.sequence.desc())
        .limit(patience - 1)
    )
    waited = [(StageStatus.WAITING, error.code)] * (patience - 1)
    if [(status, code) for status, code in await session.execute(ends)] != waited:
        return error
    remedy = REMEDIES.get(error.code)
    if remedy is None:
        return replace(error, error_class=StageErrorClass.PERMANENT)
    return replace(error, error_class=StageErrorClass.NEEDS_PERSON, message=remedy)


async def assure(stage: Stage, run: Run) -> None:
    """Check, and apply and check again if needed. "Already so" is success.

    Raises StageStopped or whatever the stage raises.
    """
    if not unmet(await stage.check(run)):
        return
    await stage.apply(run)
    again = await load_run(run.engine, run.aws, run.lease, run.stage_since)
    still = unmet(await stage.check(again))
    if still:
        seen = "; ".join(finding.evidence for finding in still)
        message = f"AWS took the change but does not show it. Seen: {seen}"
        raise StageStopped(StageError(NOT_IN_EFFECT, message, StageErrorClass.TRANSIENT))


def unmet(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status is FindingStatus.FAIL]


def backoff(attempts: int) -> timedelta:
    """Twice as long after every attempt, up to a minute, and spread so that setups do not return together."""
    longest = min(LONGEST_BACKOFF_SECONDS, 2.0 ** min(attempts, 10))
    return timedelta(seconds=longest * random.uniform(0.5, 1))  # noqa: S311 - no secret
