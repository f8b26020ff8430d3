"""The comparison of a tenancy's policies with AWS: who has changed, detached, deleted or attached them there.

It only reads. What it finds is mended by a rollout, when somebody asks for that.
"""

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from server.jobs import Job
from server.leases import StageErrorClass
from server.policies import comparison, drift
from server.policies.drift import InAws, Judged, Reading
from server.policies.models import PolicyComparison
from workers.assurance.runner import backoff
from workers.aws.session import Aws, guard
from workers.executor import Interrupted
from workers.lease import Lease, Work
from workers.steps import understood

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

PERMISSIONS = ("organizations:DescribePolicy", "organizations:ListTargetsForPolicy")
# Of the calls that AWS takes from an organization in a second most are left to setups and rollouts.
CALLS_A_SECOND = 10.0
# How often a policy is read that somebody changes meanwhile.
READINGS = 3

COMPARISON: Final[Work[PolicyComparison]] = Work(
    name="comparison of the policies of tenancy",
    prefix="ten",
    model=PolicyComparison,
    job=Job.COMPARE_POLICIES,
    live=PolicyComparison.next_attempt_at.is_not(None),
    hold=comparison.hold,
    claimed={},
)

logger = logging.getLogger(__name__)


class Comparisons:
    """Compares with the clients of one worker, each tenancy `every` so often; None for only when somebody asks."""

    def __init__(self, engine: AsyncEngine, aws: Aws, every: timedelta | None) -> None:
        self._engine = engine
        self._aws = aws
        self._every = every

    async def run(self, lease: Lease[PolicyComparison]) -> None:
        """Compare what is left of the tenancy's policies, unless an error has to pass first.

        Raises LeaseLost, Interrupted when the lease is to be given back, or what PostgreSQL raises while it is away.
        """
        guard.set(lambda _action: lease.check())
        async with lease.write() as (session, row):
            tenancy = await comparison.begin(session, row, self._every)
        if tenancy is None:
            return
        try:
            async with self._aws.client("organizations", tenancy.home_region) as organizations:
                await self._compare(lease, organizations)
        except Exception as error:
            await self._stop(lease, error)

    async def _compare(self, lease: Lease[PolicyComparison], organizations: "OrganizationsClient") -> None:
        readings = 0
        last: Reading | None = None
        while True:
            if lease.wanted_back:
                raise Interrupted
            async with lease.write() as (session, row):
                reading = await drift.next_reading(session, row)
                if reading is None:
                    await comparison.finish(session, row, self._every)
                    return
                readings = readings + 1 if last is not None and last.policy_id == reading.policy_id else 1
                if readings > READINGS:
                    drift.pass_over(row, reading)
                    continue
            last = reading
            try:
                await _judge(lease, reading, organizations)
            except Exception as error:
                if not await self._stop(lease, error, reading):
                    return

    async def _stop(self, lease: Lease[PolicyComparison], error: Exception, reading: Reading | None = None) -> bool:
        """Write the error down, and when it goes on; raises it again when nothing can or need be.

        Whether it goes on at once: with the policies after `reading`, of which AWS would tell no more the next time.
        """
        if isinstance(error, Interrupted):
            raise error
        facts = {
            "name": "" if reading is None else reading.name,
            "email": "",
            "retry": "have the policies checked again",
        }
        async with lease.write() as (session, row):
            attempts = row.attempts + 1
            told = understood(error, facts, attempts, str(lease))
            if passes := told.error_class is StageErrorClass.TRANSIENT:
                await comparison.postpone(session, row, backoff(attempts))
            elif reading is not None:
                told = replace(told, message=f"The {_label(reading)} was not compared. {told.message}")
                await comparison.keep_refused(session, row, told)
                drift.pass_over(row, reading)
            else:
                await comparison.keep_refused(session, row, told)
                await comparison.finish(session, row, self._every)
        outcome = "waits" if passes else "has ended" if reading is None else "goes on without a policy"
        logger.warning("%s with AWS %s: %s", lease, outcome, told)
        return reading is not None and not passes


async def _judge(lease: Lease[PolicyComparison], reading: Reading, organizations: "OrganizationsClient") -> None:
    in_aws = await _read(reading.aws_policy_id, organizations)
    async with lease.write() as (session, row):
        judged = await drift.keep_reading(session, row, reading, in_aws)
    if judged is not None:
        _tell(reading, judged)


async def _read(aws_policy_id: str, organizations: "OrganizationsClient") -> InAws | None:
    """The policy as AWS has it; None when AWS has none with this id."""
    pages = organizations.get_paginator("list_targets_for_policy").paginate(PolicyId=aws_policy_id)
    targets: dict[str, str] = {}
    try:
        await _in_turn()
        described = (await organizations.describe_policy(PolicyId=aws_policy_id))["Policy"]
        await _in_turn()
        async for page in pages:
            targets.update({each["TargetId"]: each["Name"] for each in page["Targets"]})
            await _in_turn()
    except organizations.exceptions.PolicyNotFoundException:
        return None
    summary = described["PolicySummary"]
    return InAws(summary["Name"], summary.get("Description", ""), described["Content"], targets)


async def _in_turn() -> None:
    """Wait for as long as calls are apart."""
    await asyncio.sleep(1 / CALLS_A_SECOND)


def _label(reading: Reading) -> str:
    return f"policy {reading.name!r} (pol_{reading.policy_id.hex})"


def _tell(reading: Reading, judged: Judged) -> None:
    policy = _label(reading)
    for detail in judged.found:
        logger.warning("%s has drifted: %s mendPolicyDrift makes AWS as it is on record.", policy, detail)
    for detail in judged.gone:
        logger.info("%s: AWS is again as it is on record; this is no longer so: %s", policy, detail)
