"""Walks the stages of a setup: check, apply, check, and what becomes of each error."""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from server.assurance.models import Stage as StageRow
from server.assurance.models import StageErrorClass, StageStatus
from server.assurance.service import LeaseLost, StageError, complete_stage, fail_stage, start_stage, wait_stage
from server.database import transaction
from server.outages import is_away
from workers.assurance.run import Run, load_run
from workers.assurance.stage import Finding, FindingStatus, Stage, StageStopped
from workers.aws.errors import NOT_READY, explain
from workers.aws.session import Aws, guard
from workers.executor import UNKNOWN_DELAY, Interrupted
from workers.lease import Lease

INTERNAL = "INTERNAL"
NOT_IN_EFFECT = "NOT_IN_EFFECT"
# How often an error in a row is taken for passing, by its code; a retry by somebody allows as many again.
PATIENCE = {INTERNAL: 5, NOT_IN_EFFECT: 8, **dict.fromkeys(NOT_READY, 10)}
LONGEST_BACKOFF_SECONDS = 60.0
CREDENTIALS_EXPIRED = ("ExpiredToken", "ExpiredTokenException")

logger = logging.getLogger(__name__)


class Runner:
    """Runs setups with these stages; a setup follows its own rows, so stages that are new since it began wait."""

    def __init__(self, engine: AsyncEngine, aws: Aws, stages: Sequence[Stage]) -> None:
        self._engine = engine
        self._aws = aws
        self._stages = {stage.name: stage for stage in stages}

    async def run(self, lease: Lease) -> None:
        """Work until the setup has finished, failed or waits.

        Raises LeaseLost, Interrupted when the lease is to be given back, or what PostgreSQL raises while it is away.
        """
        guard.set(lambda _action: lease.check())
        for row in await self._rows(lease):
            if row.status in (StageStatus.COMPLETED, StageStatus.SKIPPED):
                continue
            if lease.wanted_back:
                raise Interrupted
            stage = self._stages.get(row.name)
            if stage is None:
                logger.error("setup %s has a stage %r that this worker does not know", lease.setup_id, row.name)
                raise Interrupted(UNKNOWN_DELAY)
            if not await self._advance(lease, stage, row):
                return

    async def _rows(self, lease: Lease) -> Sequence[StageRow]:
        rows = select(StageRow).where(StageRow.setup_id == lease.setup_id).order_by(StageRow.position)
        async with transaction(self._engine) as session:
            return (await session.scalars(rows)).all()

    async def _advance(self, lease: Lease, stage: Stage, row: StageRow) -> bool:
        """Bring one stage as far as it goes; returns whether it completed."""
        async with lease.write() as (session, setup):
            await start_stage(session, setup, row.position)
            now = await session.get_one(StageRow, (row.setup_id, row.position), populate_existing=True)
        assert now.started_at is not None, "start_stage has just set it"
        run = await load_run(self._engine, self._aws, lease, now.started_at)
        try:
            await assure(stage, run)
        except Exception as error:
            stopped = self._stopped(error, run, stage)
            await self._stop(run, stage, now, stopped)
            return False
        async with lease.write() as (session, setup):
            finished = await complete_stage(session, setup, row.position)
        if finished:
            logger.info("account %s: setup %s is complete", run.account.id, lease.setup_id)
        return True

    def _stopped(self, error: Exception, run: Run, stage: Stage) -> StageStopped:
        """What the error means for the stage; raises it again when nothing can or need be written about it."""
        if isinstance(error, StageStopped):
            return error
        if isinstance(error, LeaseLost):
            raise error
        refusal = explain(error, {"name": run.account.name, "email": run.account.email})
        if refusal is None and is_away(error):
            raise error
        if refusal is None:
            logger.error("account %s: stage %s failed unexpectedly", run.account.id, stage.name, exc_info=error)
            refusal = StageError(
                INTERNAL,
                f"Freehold met an error of its own ({type(error).__name__}); the worker's log has the details.",
                StageErrorClass.TRANSIENT,
            )
        if refusal.code in CREDENTIALS_EXPIRED and run.account.aws_account_id is not None:
            self._aws.forget(run.account.aws_account_id)
            return StageStopped(refusal, timedelta(0))
        return StageStopped(refusal)

    async def _stop(self, run: Run, stage: Stage, row: StageRow, stopped: StageStopped) -> None:
        error, delay = stopped.error, stopped.delay
        # `row` still holds the error of the attempt before this one.
        patience = PATIENCE.get(error.code)
        if patience is not None and row.error_code == error.code and row.attempts % patience == 0:
            error = replace(error, error_class=StageErrorClass.PERMANENT)
        waits = error.error_class is StageErrorClass.TRANSIENT
        async with run.lease.write() as (session, setup):
            if waits:
                await wait_stage(session, setup, row.position, error, backoff(row.attempts) if delay is None else delay)
            else:
                await fail_stage(session, setup, row.position, error)
        logger.log(
            logging.INFO if waits else logging.WARNING,
            "account %s: stage %s %s: %s: %s (AWS request %s)",
            run.account.id,
            stage.name,
            "waits" if waits else "failed",
            error.code,
            error.message,
            error.aws_request_id,
        )


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
