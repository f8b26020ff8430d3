"""Tables of quotas: how much AWS allows an organization, as far as that is not what it documents."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, EnumText, one_of


class QuotaCode(StrEnum):
    ACCOUNTS = "ACCOUNTS"
    ORGANIZATIONAL_UNITS = "ORGANIZATIONAL_UNITS"
    POLICIES = "POLICIES"
    POLICIES_PER_TARGET = "POLICIES_PER_TARGET"
    POLICY_SIZE = "POLICY_SIZE"


class QuotaSource(StrEnum):
    DOCUMENTED = "DOCUMENTED"
    AWS = "AWS"
    SET = "SET"


# "Quotas and service limits for AWS Organizations", as of 2026:
# https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html
# How many accounts there may be is not told there: it says that a new organization may have fewer than the default.
DOCUMENTED: Mapping[QuotaCode, int] = {
    QuotaCode.ORGANIZATIONAL_UNITS: 2_000,
    QuotaCode.POLICIES: 10_000,
    QuotaCode.POLICIES_PER_TARGET: 10,
    QuotaCode.POLICY_SIZE: 10_240,
}


class Quota(Base):
    """A limit that AWS has told, or that somebody has set, which counts more. Without either it is the documented."""

    __tablename__ = "quota"
    __table_args__ = (
        one_of("code", QuotaCode),
        CheckConstraint("aws_limit >= 0", name="aws_limit"),
        CheckConstraint("set_limit > 0", name="set_limit"),
    )

    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"), primary_key=True)
    code: Mapped[QuotaCode] = mapped_column(EnumText(QuotaCode), primary_key=True)
    aws_limit: Mapped[int | None]
    # When AWS told it.
    read_at: Mapped[datetime | None]
    set_limit: Mapped[int | None]


class QuotaReading(Base):
    """When the limits of a tenancy are to be read from AWS again; the worker that moves this on reads them."""

    __tablename__ = "quota_reading"

    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"), primary_key=True)
    next_at: Mapped[datetime]


class TenancyQuota(Base):
    """A view: every quota of a tenancy, with what is known of it."""

    __tablename__ = "tenancy_quota"
    __table_args__ = ({"info": {"view": True}},)

    tenancy_id: Mapped[UUID] = mapped_column(primary_key=True)
    code: Mapped[QuotaCode] = mapped_column(EnumText(QuotaCode), primary_key=True)
    position: Mapped[int]
    aws_limit: Mapped[int | None]
    read_at: Mapped[datetime | None]
    set_limit: Mapped[int | None]
