"""The rollout of a policy: AWS is made as the database has it."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server import leases
from server.jobs import Job
from server.leases import LASTING
from server.policies import drift, service
from server.policies.models import AttachmentState, Policy, PolicyAttachment, PolicyState
from server.tenancies.models import Tenancy
from workers.aws.session import Aws
from workers.lease import Work
from workers.policies import calls
from workers.policies.calls import Keep
from workers.steps import Step, Steps

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

POLICY: Final[Work[Policy]] = Work(
    name="policy",
    prefix="pol",
    model=Policy,
    job=Job.ROLL_OUT_POLICY,
    live=Policy.next_attempt_at.is_not(None),
    hold=partial(leases.hold, model=Policy),
    claimed={},
)

logger = logging.getLogger(__name__)


class Rollouts(Steps[Policy]):
    """Rolls policies out with the clients of one worker."""

    def __init__(self, engine: AsyncEngine, aws: Aws) -> None:
        super().__init__(engine, aws, next_step)


async def next_step(session: AsyncSession, policy: Policy) -> Step[Policy] | None:
    """What to ask of AWS next; None when the rollout is over, at rest or waits: then the lease is given up."""
    if policy.lease_until is None:
        return None
    tenancy = await session.get_one(Tenancy, policy.tenancy_id, populate_existing=True)
    step = (
        await _step_of_policy(session, policy, tenancy)
        or await _step_of_attachment(session, policy, tenancy)
        or await _step_of_mending(session, policy, tenancy)
    )
    if step is None and policy.lease_until is not None:
        await leases.rest(session, policy)
        logger.info("policy %r (pol_%s): rolled out as far as can be", policy.name, policy.id.hex)
    return step


async def _step_of_policy(session: AsyncSession, policy: Policy, tenancy: Tenancy) -> Step[Policy] | None:
    if policy.state is PolicyState.DELETING:
        return await _step_of_deletion(session, policy, tenancy)
    if policy.state is not PolicyState.PENDING or tenancy.aws_root_id is None:
        return None
    if policy.aws_policy_id is not None:
        return _step(partial(calls.update, policy, policy.aws_policy_id), policy, tenancy)
    if policy.aws_name is None:
        # Committed before the call: should its answer be lost, the policy is looked for under this name.
        policy.aws_name = policy.name
        await session.flush()
    return _step(partial(calls.create, policy), policy, tenancy)


async def _step_of_deletion(session: AsyncSession, policy: Policy, tenancy: Tenancy) -> Step[Policy] | None:
    if policy.error_class in LASTING:
        return None
    if policy.aws_policy_id is not None:
        return _step(partial(calls.delete, policy.aws_policy_id), policy, tenancy)
    if policy.aws_name is not None:
        return _step(partial(calls.find, policy), policy, tenancy)
    await service.keep_deleted(session, policy)
    return None


async def _step_of_attachment(session: AsyncSession, policy: Policy, tenancy: Tenancy) -> Step[Policy] | None:
    while policy.lease_until is not None and (found := await service.next_attachment(session, policy)) is not None:
        attachment, target = found
        if policy.aws_policy_id is None or target is None:
            # It is to go, and AWS never had it.
            await service.keep_detached(session, policy, attachment.id)
            continue
        call = calls.attach if attachment.state is AttachmentState.PENDING else calls.detach
        return _step(partial(call, policy.aws_policy_id, target, attachment.id), policy, tenancy, attachment)
    return None


def _step(
    call: "Callable[[OrganizationsClient], Awaitable[Keep]]",
    policy: Policy,
    tenancy: Tenancy,
    attachment: PolicyAttachment | None = None,
) -> Step[Policy]:
    return Step(
        call,
        policy,
        tenancy,
        f"policy {policy.name!r} (pol_{policy.id.hex})",
        {"name": policy.name, "email": "", "retry": "retry the rollout"},
        partial(service.keep_error, asked=service.Asked.of(policy, attachment)),
    )


async def _step_of_mending(session: AsyncSession, policy: Policy, tenancy: Tenancy) -> Step[Policy] | None:
    """What else is attached in AWS goes last: what is on record is in force by then."""
    if policy.lease_until is None or policy.aws_policy_id is None:
        return None
    target = await drift.next_mend(session, policy)
    if target is None:
        return None
    return _step(partial(calls.detach_elsewhere, policy.aws_policy_id, target), policy, tenancy)
