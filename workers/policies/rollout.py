"""The rollout of a policy: AWS is made as the database has it, one call after the other.

What is to be done is read from the rows each time, and every call may be repeated: "already so" is success. So a worker
that dies anywhere leaves a rollout that the next one finishes. A call is sent once, within the lease, and noted before:
while nobody knows whether AWS has heard it, no other one is sent that it could undo.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.jobs import Job
from server.leases import LeaseLost, StageErrorClass
from server.policies import service
from server.policies.models import AttachmentState, Policy, PolicyAttachment, PolicyState
from server.tenancies.models import Tenancy
from workers.assurance.runner import PATIENCE, backoff, internal, is_database_away
from workers.assurance.stage import StageStopped
from workers.aws.errors import explain, is_outcome_unknown
from workers.aws.session import CALL_SECONDS, QUARANTINE_SECONDS, Aws, guard
from workers.aws.turns import organization_turn
from workers.executor import Interrupted
from workers.lease import Lease, Work
from workers.policies import calls
from workers.policies.calls import Keep

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

POLICY: Final[Work[Policy]] = Work(
    name="policy",
    model=Policy,
    job=Job.ROLL_OUT_POLICY,
    live=Policy.next_attempt_at.is_not(None),
    hold=service.hold,
    claimed={},
)

# Calls that change nothing, so that nothing is lost when the lease does not outlast them.
READS: Final = ("organizations:ListPolicies", "organizations:ListTagsForResource")
QUARANTINE: Final = timedelta(seconds=QUARANTINE_SECONDS)

Call: TypeAlias = Callable[["OrganizationsClient"], Awaitable[Keep]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """A call to AWS about the policy, or about one of its attachments; it returns what is to be written then."""

    call: Call
    # As they were when the step was chosen.
    policy: Policy
    tenancy: Tenancy
    attachment: PolicyAttachment | None = None

    @property
    def label(self) -> str:
        """The policy for a log line: its name, and the id that the API shows, so that one finds the other."""
        return f"{self.policy.name!r} (pol_{self.policy.id.hex})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be written of a call, and whether it is known what AWS has made of it."""

    keep: Keep
    is_known: bool = True


class Rollouts:
    """Rolls policies out with the clients of one worker."""

    def __init__(self, engine: AsyncEngine, aws: Aws) -> None:
        self._engine = engine
        self._aws = aws

    async def run(self, lease: Lease[Policy]) -> None:
        """Work until there is nothing more to do about the policy, or an error has to pass first.

        Raises LeaseLost, Interrupted when the lease is to be given back, or what PostgreSQL raises while it is away.
        """
        guard.set(lambda action: lease.check(margin=0.0 if action in READS else CALL_SECONDS))
        async with lease.write() as (session, policy):
            step = await next_step(session, policy)
        while step is not None:
            if lease.wanted_back:
                raise Interrupted
            outcome = await self._take(lease, step)
            async with lease.write() as (session, policy):
                if outcome.is_known:
                    policy.called_at = None
                await outcome.keep(session, policy)
                step = await next_step(session, policy)

    async def _take(self, lease: Lease[Policy], step: Step) -> Outcome:
        try:
            async with (
                organization_turn(self._engine, self._aws, step.tenancy.id),
                self._aws.client("organizations", step.tenancy.home_region, once=True) as organizations,
            ):
                await lease.renew(called_at=func.clock_timestamp())
                return Outcome(await step.call(organizations))
        except Exception as error:
            return self._stopped(step, error)

    def _stopped(self, step: Step, error: Exception) -> Outcome:
        """What is to be written about the error; raises it again when nothing can or need be."""
        if isinstance(error, LeaseLost) or is_database_away(error):
            raise error
        told = error.error if isinstance(error, StageStopped) else explain(error, calls.facts(step.policy))
        if told is None:
            logger.error("policy %s: the rollout met this error", step.label, exc_info=error)
            told = internal(error)
        attempts = step.policy.attempts + 1
        if attempts >= PATIENCE.get(told.code, attempts + 1):
            told = replace(told, error_class=StageErrorClass.NEEDS_PERSON)
        logger.warning("policy %s: %s: %s (AWS request %s)", step.label, told.code, told.message, told.aws_request_id)
        asked = service.Asked.of(step.policy, step.attachment)
        is_known = not is_outcome_unknown(error)
        delay = backoff(attempts) if is_known else max(backoff(attempts), QUARANTINE)
        return Outcome(partial(service.keep_error, asked=asked, error=told, delay=delay), is_known)


async def next_step(session: AsyncSession, policy: Policy) -> Step | None:
    """What to ask of AWS next; None when the rollout is over, at rest or waits: then the lease is given up."""
    if policy.lease_until is None:
        return None
    if await service.wait_for_call(session, policy, QUARANTINE):
        logger.info(
            "policy %r (pol_%s): waits until %s, as a call without an answer may reach AWS until then",
            policy.name,
            policy.id.hex,
            policy.next_attempt_at,
        )
        return None
    tenancy = await session.get_one(Tenancy, policy.tenancy_id, populate_existing=True)
    step = await _step_of_policy(session, policy, tenancy) or await _step_of_attachment(session, policy, tenancy)
    if step is None and policy.lease_until is not None:
        await service.rest(session, policy)
        logger.info("policy %r (pol_%s): rolled out as far as can be", policy.name, policy.id.hex)
    return step


async def _step_of_policy(session: AsyncSession, policy: Policy, tenancy: Tenancy) -> Step | None:
    if policy.state is PolicyState.DELETING:
        return await _step_of_deletion(session, policy, tenancy)
    if policy.state is not PolicyState.PENDING or tenancy.aws_root_id is None:
        return None
    if policy.aws_policy_id is not None:
        return Step(partial(calls.update, policy, policy.aws_policy_id), policy, tenancy)
    if policy.aws_name is None:
        # Committed before the call: should its answer be lost, the policy is looked for under this name.
        policy.aws_name = policy.name
        await session.flush()
    return Step(partial(calls.create, policy), policy, tenancy)


async def _step_of_deletion(session: AsyncSession, policy: Policy, tenancy: Tenancy) -> Step | None:
    if policy.error_class in (StageErrorClass.PERMANENT, StageErrorClass.NEEDS_PERSON):
        return None
    if policy.aws_policy_id is not None:
        return Step(partial(calls.delete, policy.aws_policy_id), policy, tenancy)
    if policy.aws_name is not None:
        return Step(partial(calls.find, policy), policy, tenancy)
    await service.keep_deleted(session, policy)
    return None


async def _step_of_attachment(session: AsyncSession, policy: Policy, tenancy: Tenancy) -> Step | None:
    while policy.lease_until is not None and (found := await service.next_attachment(session, policy)) is not None:
        attachment, target = found
        if policy.aws_policy_id is None or target is None:
            # It is to go, and AWS never had it.
            await service.keep_detached(session, policy, attachment.id)
            continue
        call = calls.attach if attachment.state is AttachmentState.PENDING else calls.detach
        return Step(partial(call, policy.aws_policy_id, target, attachment.id), policy, tenancy, attachment)
    return None
