"""Tables of accounts and their tags."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, EnumText, NewId, Now, one_of


class AccountRole(StrEnum):
    MEMBER = "MEMBER"
    SECURITY = "SECURITY"
    LOGGING = "LOGGING"
    MANAGEMENT = "MANAGEMENT"


class AccountOrigin(StrEnum):
    CREATED = "CREATED"
    ONBOARDED = "ONBOARDED"


class AccountStatus(StrEnum):
    INITIALIZING = "INITIALIZING"
    ONBOARDING = "ONBOARDING"
    DISCOVERED = "DISCOVERED"
    ACTIVE = "ACTIVE"
    ERROR = "ERROR"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    SUSPENDED = "SUSPENDED"
    CANCELLED = "CANCELLED"


# There is nothing left to govern in accounts of these.
GONE = (AccountStatus.CANCELLED, AccountStatus.CLOSED)
# AWS never had a cancelled account, so it holds nothing back that others want.
_NOT_CANCELLED = text("status <> 'CANCELLED'")


class ActorKind(StrEnum):
    API_TOKEN = "API_TOKEN"  # noqa: S105 - the kind of an actor, not a secret
    SYSTEM = "SYSTEM"


class Account(Base):
    __tablename__ = "account"
    __table_args__ = (
        one_of("role", AccountRole),
        one_of("origin", AccountOrigin),
        one_of("status", AccountStatus),
        one_of("created_by_kind", ActorKind),
        UniqueConstraint("tenancy_id", "id"),
        UniqueConstraint("tenancy_id", "aws_account_id"),
        Index("uq_account_alias", "tenancy_id", "alias", unique=True, postgresql_where=_NOT_CANCELLED),
        Index("uq_account_name", "tenancy_id", text("lower(name)"), unique=True, postgresql_where=_NOT_CANCELLED),
        Index("uq_account_email", "tenancy_id", text("lower(email)"), unique=True, postgresql_where=_NOT_CANCELLED),
        # One management, one Security and one Logging account for each tenancy.
        Index("uq_account_role", "tenancy_id", "role", unique=True, postgresql_where=text("role <> 'MEMBER'")),
        Index("ix_account_tenancy_id_name_id", "tenancy_id", text("lower(name)"), "id"),
        Index("ix_account_tenancy_id_created_at_id", "tenancy_id", "created_at", "id"),
        Index("ix_account_tenancy_id_updated_at_id", "tenancy_id", "updated_at", "id"),
        Index("ix_account_account_type_id_created_at_id", "account_type_id", "created_at", "id"),
        Index(
            "ix_account_governance_due_at", "governance_due_at", postgresql_where=text("governance_due_at IS NOT NULL")
        ),
        ForeignKeyConstraint(["tenancy_id", "account_type_id"], ["account_type.tenancy_id", "account_type.id"]),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    # The IAM account alias; unique over all of AWS, so AWS has the last word and the stage may add a suffix.
    alias: Mapped[str | None]
    email: Mapped[str]
    aws_account_id: Mapped[str | None]
    role: Mapped[AccountRole] = mapped_column(EnumText(AccountRole), default=AccountRole.MEMBER)
    origin: Mapped[AccountOrigin] = mapped_column(EnumText(AccountOrigin), default=AccountOrigin.CREATED)
    status: Mapped[AccountStatus] = mapped_column(EnumText(AccountStatus), default=AccountStatus.INITIALIZING)
    account_type_id: Mapped[UUID]
    # The number of the account's newest event; raised in the transaction that writes the event, so numbers have no gap.
    last_seq: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    # Since when AWS may not be as governance wants the account; a setup that begins takes care of it, and clears this.
    governance_due_at: Mapped[datetime | None]
    created_at: Mapped[Now]
    created_by_kind: Mapped[ActorKind] = mapped_column(EnumText(ActorKind))
    created_by_id: Mapped[UUID | None]
    created_by_name: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"), onupdate=text("now()"))


class Tag(Base):
    """A key and value on an account; in AWS too where the tenancy wants that."""

    __tablename__ = "tag"
    __table_args__ = (
        ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"]),
        Index("ix_tag_tenancy_id_key_value_account_id", "tenancy_id", "key", "value", "account_id"),
    )

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    value: Mapped[str]


class PropagatedTag(Base):
    """The key of a tag that Freehold has given the account in AWS, or is about to, and so may take from it again."""

    __tablename__ = "propagated_tag"
    __table_args__ = (ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"]),)

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))


class TagKey(Base):
    """A view: each key that accounts of a tenancy have a tag of, without those of cancelled accounts."""

    __tablename__ = "tag_key"
    __table_args__ = ({"info": {"view": True}},)

    # Made of the key: lists want one.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str]
    account_count: Mapped[int]


class TagKeyValue(Base):
    """A view: the same for each value of a key."""

    __tablename__ = "tag_value"
    __table_args__ = ({"info": {"view": True}},)

    # Made of the value.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    account_count: Mapped[int]
