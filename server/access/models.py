"""Tables of access: groups, the users in them, and what IAM roles they have in which accounts.

`user` and `group` are words of SQL, hence the names of two tables.
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, EnumText, NewId, Now, one_of


class AccessRole(StrEnum):
    ADMIN = "ADMIN"
    DEVELOPER = "DEVELOPER"
    READONLY = "READONLY"


class AccessState(StrEnum):
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    REMOVING = "REMOVING"
    FAILED = "FAILED"


# What stands for the number of each account; a policy of one account could be attached in that account alone.
ACCOUNT = "{account}"
# The stage that removes the roles which are REMOVING.
WITHDRAWAL = "withdrawn_access"


class AccessCause(StrEnum):
    """Why a group has a role in an account, or has it no longer."""

    GRANTED = "GRANTED"
    JOINED = "JOINED"
    REVOKED = "REVOKED"
    LEFT = "LEFT"


class Group(Base):
    __tablename__ = "user_group"
    __table_args__ = (
        UniqueConstraint("tenancy_id", "id"),
        UniqueConstraint("tenancy_id", "slug"),
        Index("uq_user_group_name", "tenancy_id", text("lower(name)"), unique=True),
        Index("ix_user_group_tenancy_id_created_at_id", "tenancy_id", "created_at", "id"),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    # The end of the names of its IAM roles: from its first name, and the same after it is renamed.
    slug: Mapped[str]
    created_at: Mapped[Now]


class User(Base):
    """A person. There is no password: people sign in where their organization has them do so."""

    __tablename__ = "person"
    __table_args__ = (
        UniqueConstraint("tenancy_id", "id"),
        Index("uq_person_email", "tenancy_id", text("lower(email)"), unique=True),
        Index("ix_person_tenancy_id_name_id", "tenancy_id", text("lower(name)"), "id"),
        Index("ix_person_tenancy_id_created_at_id", "tenancy_id", "created_at", "id"),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    email: Mapped[str]
    created_at: Mapped[Now]


class Membership(Base):
    __tablename__ = "group_membership"
    __table_args__ = (
        ForeignKeyConstraint(["tenancy_id", "group_id"], ["user_group.tenancy_id", "user_group.id"]),
        ForeignKeyConstraint(["tenancy_id", "user_id"], ["person.tenancy_id", "person.id"]),
        Index("ix_group_membership_user_id_group_id", "user_id", "group_id"),
    )

    group_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    created_at: Mapped[Now]


class AccessGrant(Base):
    """A group's role on an account type: what its accounts get, and what an account gets that joins it."""

    __tablename__ = "access_grant"
    __table_args__ = (
        one_of("role", AccessRole),
        # What is deleted takes the access to it along.
        ForeignKeyConstraint(
            ["tenancy_id", "account_type_id"], ["account_type.tenancy_id", "account_type.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["tenancy_id", "group_id"], ["user_group.tenancy_id", "user_group.id"]),
        Index("ix_access_grant_group_id", "group_id"),
    )

    account_type_id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[UUID] = mapped_column(primary_key=True)
    role: Mapped[AccessRole] = mapped_column(EnumText(AccessRole), primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    # An ARN, in which {account} stands for the number of each account.
    managed_policy_arn: Mapped[str]
    apply_to_new_accounts: Mapped[bool]
    created_at: Mapped[Now]


class AccountAccess(Base):
    """An IAM role that a group has, or should have, in one account."""

    __tablename__ = "account_access"
    __table_args__ = (
        one_of("role", AccessRole),
        one_of("cause", AccessCause),
        one_of("state", AccessState),
        ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"]),
        ForeignKeyConstraint(["tenancy_id", "group_id"], ["user_group.tenancy_id", "user_group.id"]),
        # All that is left of a deleted type are roles being removed: that goes on without these rows.
        ForeignKeyConstraint(
            ["tenancy_id", "account_type_id"], ["account_type.tenancy_id", "account_type.id"], ondelete="CASCADE"
        ),
        Index("ix_account_access_account_type_id_group_id_role", "account_type_id", "group_id", "role"),
        Index("ix_account_access_group_id", "group_id"),
    )

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[UUID] = mapped_column(primary_key=True)
    role: Mapped[AccessRole] = mapped_column(EnumText(AccessRole), primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    # Whose grant it comes from, or came from.
    account_type_id: Mapped[UUID]
    managed_policy_arn: Mapped[str]
    cause: Mapped[AccessCause] = mapped_column(EnumText(AccessCause))
    state: Mapped[AccessState] = mapped_column(EnumText(AccessState), default=AccessState.PENDING)
    # Why AWS has refused it.
    error: Mapped[str | None]
    changed_at: Mapped[datetime] = mapped_column(server_default=text("now()"), onupdate=text("now()"))


class Access(Base):
    """A view for reading: the grants on account types, and what has come of them in accounts, in rows of one kind.

    `target` says which; cause, state and error are those of an account.
    """

    __tablename__ = "access"
    __table_args__ = (
        ForeignKeyConstraint(["tenancy_id", "group_id"], ["user_group.tenancy_id", "user_group.id"]),
        ForeignKeyConstraint(["tenancy_id", "account_type_id"], ["account_type.tenancy_id", "account_type.id"]),
        {"info": {"view": True}},
    )

    target: Mapped[str] = mapped_column(primary_key=True)
    account_type_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[UUID] = mapped_column(primary_key=True)
    role: Mapped[AccessRole] = mapped_column(EnumText(AccessRole), primary_key=True)
    tenancy_id: Mapped[UUID]
    group_name: Mapped[str]
    group_slug: Mapped[str]
    managed_policy_arn: Mapped[str]
    cause: Mapped[str | None]
    state: Mapped[str | None]
    error: Mapped[str | None]
