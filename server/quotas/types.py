"""GraphQL types of quotas."""

from datetime import datetime

import strawberry

from server.graphql.scalars import expose
from server.planner.mapping import computed, table
from server.quotas import models
from server.quotas.models import QuotaCode, QuotaSource
from server.quotas.use import LIMIT, USED, by_code

expose(
    QuotaCode,
    "What AWS limits.",
    ACCOUNTS="The accounts of the organization: the management account, those being created, and closed ones too.",
    ORGANIZATIONAL_UNITS="The organizational units of the organization: one of each account type, and three more.",
    POLICIES="The service control policies of the organization.",
    POLICIES_PER_TARGET="Those on one target, AWS's FullAWSAccess among them; in use: of the target with most.",
    POLICY_SIZE="The characters of a document without needless ones; in use: of the longest.",
)
expose(
    QuotaSource,
    "Where a limit comes from.",
    DOCUMENTED="The User Guide of AWS Organizations; null where that leaves it open.",
    AWS="AWS told it, by Service Quotas, at `readAt`.",
    SET="Somebody set it with `setQuota`.",
)


@strawberry.type(
    description="How much AWS allows of something, and how much is in use. What would exceed it is refused."
)
@table(models.TenancyQuota)
class Quota:
    code: QuotaCode
    limit: int | None = computed(LIMIT, description="Null while nobody has told it.")
    used: int = computed(by_code({code: sql.replace("{tenancy}", "{row}.tenancy_id") for code, sql in USED.items()}))
    source: QuotaSource = computed(
        "case when {row}.set_limit is not null then 'SET' when {row}.aws_limit is not null then 'AWS'"
        " else 'DOCUMENTED' end"
    )
    read_at: datetime | None = strawberry.field(
        description="When AWS last told its limit, whether or not another is set; null if it never has."
    )


@strawberry.input
class SetQuotaInput:
    code: QuotaCode
    limit: int | None = strawberry.field(
        default=None, description="From 1. Absent or null: what AWS tells, or else what it documents."
    )
