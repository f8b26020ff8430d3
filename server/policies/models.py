"""Tables of policies: service control policies, what they are attached to, their versions and their events."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.accounts.models import ActorKind
from server.database import Base, EnumText, MinifiedJson, NewId, Now, is_object, one_of
from server.leases import Leased, Recurring, Refusable, StageErrorClass


class PolicyState(StrEnum):
    """Of the policy itself; each attachment has a state of its own. DELETED stands in its last event alone."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    DELETING = "DELETING"
    FAILED = "FAILED"
    DELETED = "DELETED"


class AttachmentState(StrEnum):
    """DETACHED stands in an attachment's last event alone."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    DETACHING = "DETACHING"
    FAILED = "FAILED"
    DETACHED = "DETACHED"


class _Made:
    """Who made the row, and who asked last for what is to become of it."""

    created_at: Mapped[Now]
    created_by_kind: Mapped[ActorKind] = mapped_column(EnumText(ActorKind))
    created_by_id: Mapped[UUID | None]
    created_by_name: Mapped[str]
    # Null for what was asked for before it was kept.
    requested_by_kind: Mapped[ActorKind | None] = mapped_column(EnumText(ActorKind))
    requested_by_id: Mapped[UUID | None]
    requested_by_name: Mapped[str | None]


class Policy(Recurring, _Made, Base):
    __tablename__ = "policy"
    __table_args__ = (
        one_of("state", PolicyState),
        one_of("error_class", StageErrorClass),
        one_of("created_by_kind", ActorKind),
        one_of("requested_by_kind", ActorKind),
        is_object("document"),
        UniqueConstraint("tenancy_id", "id"),
        UniqueConstraint("tenancy_id", "aws_policy_id"),
        Index("uq_policy_name", "tenancy_id", text("lower(name)"), unique=True),
        Index("ix_policy_tenancy_id_created_at_id", "tenancy_id", "created_at", "id"),
        Index("ix_policy_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    description: Mapped[str]
    # Its length is what AWS limits.
    document: Mapped[dict[str, Any]] = mapped_column(MinifiedJson())
    version: Mapped[int] = mapped_column(server_default=text("1"), default=1)
    # Freehold's own, which nobody may change.
    managed: Mapped[bool] = mapped_column(default=False)
    state: Mapped[PolicyState] = mapped_column(EnumText(PolicyState), default=PolicyState.PENDING)
    # The name under which AWS is asked to make it, written before the call: after a call whose answer was lost it is
    # looked for under this one, whatever its name is by then.
    aws_name: Mapped[str | None]
    aws_policy_id: Mapped[str | None]
    # The version that AWS has; null when that is not known.
    aws_version: Mapped[int | None]
    # The number of the newest event; raised in the transaction that writes the event, so numbers have no gap.
    last_seq: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class PolicyVersion(Base):
    """A policy as somebody wrote it; `diff` is what has changed in the document, line by line, since the one before."""

    __tablename__ = "policy_version"
    __table_args__ = (
        one_of("created_by_kind", ActorKind),
        is_object("document"),
        ForeignKeyConstraint(["tenancy_id", "policy_id"], ["policy.tenancy_id", "policy.id"], ondelete="CASCADE"),
    )

    policy_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    description: Mapped[str]
    document: Mapped[dict[str, Any]] = mapped_column(MinifiedJson())
    diff: Mapped[str]
    created_at: Mapped[Now]
    created_by_kind: Mapped[ActorKind] = mapped_column(EnumText(ActorKind))
    created_by_id: Mapped[UUID | None]
    created_by_name: Mapped[str]


class PolicyAttachment(Refusable, _Made, Base):
    """A policy on a target: an account type or an account, or the whole tenancy when it names neither."""

    __tablename__ = "policy_attachment"
    __table_args__ = (
        one_of("state", AttachmentState),
        one_of("error_class", StageErrorClass),
        one_of("created_by_kind", ActorKind),
        one_of("requested_by_kind", ActorKind),
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
        Index(
            "ix_policy_attachment_tenancy",
            "tenancy_id",
            postgresql_where=text("account_type_id IS NULL AND account_id IS NULL"),
        ),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    policy_id: Mapped[UUID]
    account_type_id: Mapped[UUID | None]
    account_id: Mapped[UUID | None]
    state: Mapped[AttachmentState] = mapped_column(EnumText(AttachmentState), default=AttachmentState.PENDING)


class Via(StrEnum):
    """By which of its targets a policy reaches an account."""

    TENANCY = "TENANCY"
    ACCOUNT_TYPE = "ACCOUNT_TYPE"
    ACCOUNT = "ACCOUNT"


class EffectivePolicy(Base):
    """A view: each attachment that reaches an account. The keys are those of the tables that it is made of."""

    __tablename__ = "effective_policy"
    __table_args__ = (
        ForeignKeyConstraint(["policy_id"], ["policy.id"]),
        ForeignKeyConstraint(["attachment_id"], ["policy_attachment.id"]),
        {"info": {"view": True}},
    )

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    attachment_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenancy_id: Mapped[UUID]
    policy_id: Mapped[UUID]
    via: Mapped[Via] = mapped_column(EnumText(Via))
    # From the root of the organization down, from 1.
    level: Mapped[int]
    state: Mapped[AttachmentState] = mapped_column(EnumText(AttachmentState))
    attached_at: Mapped[datetime]


class DriftKind(StrEnum):
    """What somebody has done in AWS, without Freehold."""

    DOCUMENT_CHANGED = "DOCUMENT_CHANGED"
    POLICY_MISSING = "POLICY_MISSING"
    DETACHED = "DETACHED"
    ATTACHED_ELSEWHERE = "ATTACHED_ELSEWHERE"


class PolicyDrift(Base):
    """What AWS has otherwise than it is on record, as the last comparison found it."""

    __tablename__ = "policy_drift"
    __table_args__ = (
        one_of("kind", DriftKind),
        is_object("document"),
        CheckConstraint("num_nonnulls(account_type_id, account_id, target_tenancy_id) <= 1", name="target"),
        # Nothing that goes is kept back by what was found about it.
        ForeignKeyConstraint(["tenancy_id", "policy_id"], ["policy.tenancy_id", "policy.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["tenancy_id", "account_type_id"], ["account_type.tenancy_id", "account_type.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"], ondelete="CASCADE"),
        Index("ix_policy_drift_tenancy_id_found_at", "tenancy_id", "found_at"),
        Index("ix_policy_drift_account_type_id", "account_type_id"),
        Index("ix_policy_drift_account_id", "account_id"),
    )

    policy_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[DriftKind] = mapped_column(EnumText(DriftKind), primary_key=True)
    # Empty for what is about the policy itself.
    aws_target_id: Mapped[str] = mapped_column(server_default=text("''"), default="", primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    # The target as Freehold knows it: one of these, or none.
    account_type_id: Mapped[UUID | None]
    account_id: Mapped[UUID | None]
    target_tenancy_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenancy.id"))
    found_at: Mapped[Now]
    # A sentence about it.
    detail: Mapped[str]
    # What AWS has, of a policy that was changed there.
    name: Mapped[str | None]
    description: Mapped[str | None]
    document: Mapped[dict[str, Any] | None] = mapped_column(MinifiedJson())
    # Somebody has asked for AWS to be made as it is on record.
    mending: Mapped[bool] = mapped_column(server_default=text("false"), default=False)


class PolicyComparison(Refusable, Leased, Base):
    """The comparisons of a tenancy's policies with AWS: when the next one is due, and how far one has come.

    The error is what AWS refused last, until a comparison comes to its end in which it refuses nothing.
    """

    __tablename__ = "policy_comparison"
    __table_args__ = (one_of("error_class", StageErrorClass),)

    # The tenancy's own, of which there is one: it tells in a line of the log which it is.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"), unique=True)
    # Null where nothing is scheduled and nobody has asked.
    next_attempt_at: Mapped[datetime | None]
    # How often in a row it has stopped at an error that passes.
    attempts: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    # When somebody asked for one that has not begun since.
    requested_at: Mapped[datetime | None]
    # When the one under way began, and the last policy that it is done with.
    started_at: Mapped[datetime | None]
    after_policy_id: Mapped[UUID | None]
    # When the last one that came to its end began.
    checked_at: Mapped[datetime | None]
    # When AWS refused what the error is about.
    refused_at: Mapped[datetime | None]


class PolicyEvent(Base):
    """One change of a policy or of an attachment, with the rows as they were then. It outlives them."""

    __tablename__ = "policy_event"

    policy_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    policy: Mapped[dict[str, Any]] = mapped_column(JSONB())
    attachment: Mapped[dict[str, Any] | None] = mapped_column(JSONB())
