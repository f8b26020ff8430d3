"""Every table of Freehold: the one import that migrations and workers need."""

from sqlalchemy.schema import SchemaItem

from server.access.models import AccessGrant, AccountAccess, Group, Membership, User
from server.account_types.models import AccountType
from server.accounts.models import Account, PropagatedTag, Tag
from server.assurance.models import CreateIntent, Event, EventCounter, Setup, Stage, StageDefinition
from server.database import Base
from server.idempotency import IdempotencyKey
from server.identity.models import ApiToken
from server.jobs import Outbox
from server.policies.models import EffectivePolicy, Policy, PolicyAttachment, PolicyEvent, PolicyVersion
from server.quotas.models import Quota, QuotaReading
from server.tenancies.models import Tenancy


def is_table(declared: SchemaItem, *_: object) -> bool:
    """Whether migrations are compared with it: a view is written by hand."""
    return "view" not in declared.info


__all__ = [
    "AccessGrant",
    "Account",
    "AccountAccess",
    "AccountType",
    "ApiToken",
    "Base",
    "CreateIntent",
    "EffectivePolicy",
    "Event",
    "EventCounter",
    "Group",
    "IdempotencyKey",
    "Membership",
    "Outbox",
    "Policy",
    "PolicyAttachment",
    "PolicyEvent",
    "PolicyVersion",
    "PropagatedTag",
    "Quota",
    "QuotaReading",
    "Setup",
    "Stage",
    "StageDefinition",
    "Tag",
    "Tenancy",
    "User",
    "is_table",
]
