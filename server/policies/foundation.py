"""The policies that every tenancy has and nobody may change: they protect what Freehold itself stands on.

Written when a tenancy is bootstrapped, and brought up to date when a worker starts. `arn:*` is of every partition.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.account_types.models import AccountType
from server.account_types.service import FOUNDATION
from server.accounts.service import SYSTEM
from server.policies.comparison import ensure_comparison
from server.policies.models import Policy
from server.policies.requests import Target, add_attachment, add_policy, attachment_to, change_policy
from server.tenancies.models import Tenancy
from server.tenancies.service import ROLE

# Any number that nothing else in the database uses: workers that start together write one after the other.
MANAGED_LOCK = 0x706F6C69

# The role that Freehold works in, and the path of those that it makes.
OWN_ROLE = f"arn:*:iam::*:role/{ROLE}"
MADE_ROLES = "arn:*:iam::*:role/freehold/*"
NOT_FREEHOLD: dict[str, Any] = {"ArnNotLike": {"aws:PrincipalArn": OWN_ROLE}}


@dataclass(frozen=True, slots=True)
class Managed:
    """A policy of Freehold's own: on the Foundation type alone, or on the whole tenancy."""

    name: str
    description: str
    document: dict[str, Any]
    on_foundation: bool


PROTECTION = Managed(
    "freehold-protection",
    "Nobody but Freehold changes the roles that Freehold works in, and no account leaves the organization.",
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "FreeholdRoles",
                "Effect": "Deny",
                "Action": [
                    "iam:AttachRolePolicy",
                    "iam:CreateRole",
                    "iam:DeleteRole",
                    "iam:DeleteRolePermissionsBoundary",
                    "iam:DeleteRolePolicy",
                    "iam:DetachRolePolicy",
                    "iam:PutRolePermissionsBoundary",
                    "iam:PutRolePolicy",
                    "iam:TagRole",
                    "iam:UntagRole",
                    "iam:UpdateAssumeRolePolicy",
                    "iam:UpdateRole",
                    "iam:UpdateRoleDescription",
                ],
                "Resource": [OWN_ROLE, MADE_ROLES],
                "Condition": NOT_FREEHOLD,
            },
            {
                "Sid": "FreeholdMembership",
                "Effect": "Deny",
                "Action": "organizations:LeaveOrganization",
                "Resource": "*",
            },
        ],
    },
    on_foundation=False,
)
FOUNDATION_PROTECTION = Managed(
    "freehold-foundation",
    "Nobody but Freehold turns off what watches over the organization, or touches the buckets that keep its logs.",
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "FreeholdWatch",
                "Effect": "Deny",
                "Action": [
                    "cloudtrail:DeleteTrail",
                    "cloudtrail:PutEventSelectors",
                    "cloudtrail:StopLogging",
                    "cloudtrail:UpdateTrail",
                    "config:DeleteConfigRule",
                    "config:DeleteConfigurationAggregator",
                    "config:DeleteConfigurationRecorder",
                    "config:DeleteDeliveryChannel",
                    "config:StopConfigurationRecorder",
                    "guardduty:DeleteDetector",
                    "guardduty:DeleteMembers",
                    "guardduty:DisableOrganizationAdminAccount",
                    "guardduty:DisassociateMembers",
                    "guardduty:StopMonitoringMembers",
                    "guardduty:UpdateDetector",
                    "securityhub:BatchDisableStandards",
                    "securityhub:DeleteMembers",
                    "securityhub:DisableOrganizationAdminAccount",
                    "securityhub:DisableSecurityHub",
                    "securityhub:DisassociateMembers",
                ],
                "Resource": "*",
                "Condition": NOT_FREEHOLD,
            },
            {
                "Sid": "FreeholdLogs",
                "Effect": "Deny",
                "Action": [
                    "s3:DeleteBucket",
                    "s3:DeleteBucketPolicy",
                    "s3:DeleteObject",
                    "s3:DeleteObjectVersion",
                    "s3:PutBucketAcl",
                    "s3:PutBucketPolicy",
                    "s3:PutBucketVersioning",
                    "s3:PutEncryptionConfiguration",
                    "s3:PutLifecycleConfiguration",
                ],
                "Resource": ["arn:*:s3:::freehold-*", "arn:*:s3:::freehold-*/*"],
                "Condition": NOT_FREEHOLD,
            },
        ],
    },
    on_foundation=True,
)
MANAGED = (PROTECTION, FOUNDATION_PROTECTION)


async def keep_managed(session: AsyncSession, tenancy_id: UUID) -> None:
    """Give the tenancy its managed policies, each as it is now and on its target. What is so already is left alone.

    From then on its policies are compared with AWS.
    """
    await ensure_comparison(session, tenancy_id)
    foundation = await session.scalar(
        select(AccountType.id).where(
            AccountType.tenancy_id == tenancy_id, AccountType.foundation.is_(True), AccountType.name == FOUNDATION
        )
    )
    for managed in MANAGED:
        of_name = select(Policy).where(Policy.tenancy_id == tenancy_id, func.lower(Policy.name) == managed.name)
        policy = (await session.scalars(of_name.with_for_update())).one_or_none()
        if policy is None:
            policy = await add_policy(
                session,
                SYSTEM,
                tenancy_id,
                name=managed.name,
                description=managed.description,
                document=managed.document,
                managed=True,
            )
        else:
            # One that somebody wrote before its name was Freehold's own becomes Freehold's.
            await change_policy(
                session,
                SYSTEM,
                policy,
                name=managed.name,
                description=managed.description,
                document=managed.document,
                managed=True,
            )
        target = Target(account_type_id=foundation if managed.on_foundation else None)
        if managed.on_foundation and foundation is None:
            continue
        if (await session.scalars(attachment_to(policy, target))).first() is None:
            await add_attachment(session, SYSTEM, policy, target)


async def keep_all_managed(session: AsyncSession) -> None:
    """The managed policies of every tenancy, as this version has them."""
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MANAGED_LOCK})
    for tenancy_id in (await session.scalars(select(Tenancy.id).order_by(Tenancy.id))).all():
        await keep_managed(session, tenancy_id)
