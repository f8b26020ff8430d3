"""Every table of Freehold: the one import that migrations and workers need."""

from server.account_types.models import AccountType
from server.accounts.models import Account, Tag
from server.assurance.models import CreateIntent, Event, EventCounter, Setup, Stage, StageDefinition
from server.database import Base
from server.idempotency import IdempotencyKey
from server.identity.models import ApiToken
from server.jobs import Outbox
from server.policies.models import Policy, PolicyAttachment, PolicyEvent, PolicyVersion
from server.tenancies.models import Tenancy

__all__ = [
    "Account",
    "AccountType",
    "ApiToken",
    "Base",
    "CreateIntent",
    "Event",
    "EventCounter",
    "IdempotencyKey",
    "Outbox",
    "Policy",
    "PolicyAttachment",
    "PolicyEvent",
    "PolicyVersion",
    "Setup",
    "Stage",
    "StageDefinition",
    "Tag",
    "Tenancy",
]
