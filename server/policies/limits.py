"""What AWS allows of policies: AWS Organizations User Guide, "Quotas and service limits",
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html
"""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession


async def policy_size_limit(session: AsyncSession, tenancy_id: UUID) -> int:
    """How many characters a service control policy may have."""
    return 10_240


async def policies_per_target_limit(session: AsyncSession, tenancy_id: UUID) -> int:
    """How many service control policies one target may have, AWS's FullAWSAccess among them."""
    return 10
