"""The job functions: thin, because a job is only a wake-up that may be lost, doubled or late."""

import logging
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from server.assurance.models import Setup
from server.policies.models import Policy
from workers.assurance.units import create_unit_of_type
from workers.aws.errors import explain
from workers.aws.session import Aws
from workers.executor import Executor
from workers.governance import begin_due_setups

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """What the job functions work with; arq hands it to them as `ctx["resources"]`."""

    engine: AsyncEngine
    aws: Aws
    executor: Executor[Setup]
    rollouts: Executor[Policy]


async def run_setup(ctx: dict[str, Any], setup_id: str) -> None:
    """Claim the setup, if it is to be had, and hand it to the executor; returns at once."""
    resources: Resources = ctx["resources"]
    await resources.executor.offer(UUID(setup_id))


async def roll_out_policy(ctx: dict[str, Any], policy_id: str) -> None:
    """Claim the policy, if it is to be had, and hand it to its executor; returns at once."""
    resources: Resources = ctx["resources"]
    await resources.rollouts.offer(UUID(policy_id))


async def create_organizational_unit(ctx: dict[str, Any], account_type_id: str) -> None:
    """Make the account type's OU if it has none. What goes wrong is logged; the sweeper sends the job again."""
    resources: Resources = ctx["resources"]
    try:
        await create_unit_of_type(resources.engine, resources.aws, UUID(account_type_id))
    except Exception as error:
        refusal = explain(error, {"name": "", "email": ""})
        if refusal is None:
            raise
        logger.warning("account type %s has no OU yet: %s: %s", account_type_id, refusal.code, refusal.message)


async def govern_accounts(ctx: dict[str, Any], tenancy_id: str) -> None:
    """Begin setups of the first accounts whose governance is due, of whatever tenancy; the sweeper begins the rest."""
    resources: Resources = ctx["resources"]
    await begin_due_setups(resources.engine)
