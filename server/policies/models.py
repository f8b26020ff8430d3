"""Tables of policies: service control policies, and what they are attached to."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, EnumText, MinifiedJson, NewId, Now, is_object, one_of


class PolicyState(StrEnum):
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    FAILED = "FAILED"


class AttachmentState(StrEnum):
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    DETACHING = "DETACHING"
    FAILED = "FAILED"


class Policy(Base):
    __tablename__ = "policy"
    __table_args__ = (
        one_of("state", PolicyState),
        is_object("document"),
        UniqueConstraint("tenancy_id", "id"),
        Index("uq_policy_name", "tenancy_id", text("lower(name)"), unique=True),
        Index("ix_policy_tenancy_id_created_at_id", "tenancy_id", "created_at", "id"),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    description: Mapped[str]
    # Its length is what AWS limits.
    document: Mapped[dict[str, Any]] = mapped_column(MinifiedJson())
    # Freehold's own, which nobody may change.
    managed: Mapped[bool] = mapped_column(default=False)
    state: Mapped[PolicyState] = mapped_column(EnumText(PolicyState), default=PolicyState.PENDING)
    created_at: Mapped[Now]


class PolicyAttachment(Base):
    """A policy on a target: an account type or an account, or the whole tenancy when it names neither."""

    __tablename__ = "policy_attachment"
    __table_args__ = (
        one_of("state", AttachmentState),
        CheckConstraint("num_nonnulls(account_type_id, account_id) <= 1", name="target"),
        ForeignKeyConstraint(["tenancy_id", "policy_id"], ["policy.tenancy_id", "policy.id"]),
        ForeignKeyConstraint(["tenancy_id", "account_type_id"], ["account_type.tenancy_id", "account_type.id"]),
        ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"]),
        Index(
            "uq_policy_attachment_target",
            "policy_id",
            "account_type_id",
            "account_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_policy_attachment_account_type_id_policy_id", "account_type_id", "policy_id"),
        Index("ix_policy_attachment_account_id_policy_id", "account_id", "policy_id"),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    policy_id: Mapped[UUID]
    account_type_id: Mapped[UUID | None]
    account_id: Mapped[UUID | None]
    state: Mapped[AttachmentState] = mapped_column(EnumText(AttachmentState), default=AttachmentState.PENDING)
    created_at: Mapped[Now]
