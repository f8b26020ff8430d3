"""Tables of a tenancy: one customer of an installation, which is one AWS Organization."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, EnumText, NewId, Now, one_of


class TenancyState(StrEnum):
    """INITIALIZING until the organization exists and the management, Security and Logging accounts are ACTIVE."""

    INITIALIZING = "INITIALIZING"
    ACTIVE = "ACTIVE"


class Tenancy(Base):
    __tablename__ = "tenancy"
    __table_args__ = (
        one_of("state", TenancyState),
        UniqueConstraint("name"),
        # Two tenancies that govern one organization would undo each other's work.
        UniqueConstraint("aws_organization_id"),
    )

    id: Mapped[NewId]
    name: Mapped[str]
    state: Mapped[TenancyState] = mapped_column(EnumText(TenancyState), default=TenancyState.INITIALIZING)
    home_region: Mapped[str]
    regions: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    # The e-mail of an account made without one; `{id}` becomes the account's own 32 hex digits.
    email_template: Mapped[str]
    # The security contact of every account (CIS AWS Foundations 7.0, control 2.3).
    security_contact_name: Mapped[str]
    security_contact_email: Mapped[str]
    security_contact_phone: Mapped[str]
    aws_organization_id: Mapped[str | None]
    aws_root_id: Mapped[str | None]
    foundation_ou_id: Mapped[str | None]
    workloads_ou_id: Mapped[str | None]
    suspended_ou_id: Mapped[str | None]
    # Whether the tags of its accounts are in AWS too.
    propagate_tags: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    created_at: Mapped[Now]


class OrganizationTurn(Base):
    """Which worker may change the organization of a tenancy, and until when; which other worker waits for it."""

    __tablename__ = "organization_turn"

    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"), primary_key=True)
    holder: Mapped[UUID]
    until: Mapped[datetime]
    worker: Mapped[UUID] = mapped_column(server_default=text("uuidv7()"))
    # Until then the worker that had the turn leaves the next one to this one.
    wanted_by: Mapped[UUID | None]
    wanted_until: Mapped[datetime | None]
