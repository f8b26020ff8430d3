"""The job functions: thin, because a job is only a wake-up that may be lost, doubled or late."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from server.account_types.models import AccountType
from server.assurance.models import Setup
from server.policies.models import Policy, PolicyComparison
from workers.aws.session import Aws
from workers.executor import Executor
from workers.governance import begin_due_setups


@dataclass(frozen=True, slots=True)
class Resources:
    """What the job functions work with; arq hands it to them as `ctx["resources"]`."""

    engine: AsyncEngine
    aws: Aws
    executor: Executor[Setup]
    rollouts: Executor[Policy]
    units: Executor[AccountType]
    comparisons: Executor[PolicyComparison]


async def run_setup(ctx: dict[str, Any], setup_id: str) -> None:
    """Claim the setup, if it is to be had, and hand it to the executor; returns at once."""
    resources: Resources = ctx["resources"]
    await resources.executor.offer(UUID(setup_id))


async def roll_out_policy(ctx: dict[str, Any], policy_id: str) -> None:
    """Claim the policy, if it is to be had, and hand it to its executor; returns at once."""
    resources: Resources = ctx["resources"]
    await resources.rollouts.offer(UUID(policy_id))


async def compare_policies(ctx: dict[str, Any], comparison_id: str) -> None:
    """Claim the comparison, if it is to be had, and hand it to its executor; returns at once."""
    resources: Resources = ctx["resources"]
    await resources.comparisons.offer(UUID(comparison_id))


async def keep_organizational_unit(ctx: dict[str, Any], account_type_id: str) -> None:
    """Claim the account type, if it is to be had, and hand it to its executor; returns at once."""
    resources: Resources = ctx["resources"]
    await resources.units.offer(UUID(account_type_id))


async def govern_accounts(ctx: dict[str, Any], tenancy_id: str) -> None:
    """Begin setups of the first accounts whose governance is due, of whatever tenancy; the sweeper begins the rest."""
    resources: Resources = ctx["resources"]
    await begin_due_setups(resources.engine)
