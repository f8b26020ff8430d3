"""Tables of account assurance: setups, their stages, their events, and the intent to create an account in AWS."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, EnumText, NewId, Now, one_of
from server.leases import Leased, StageErrorClass


class SetupKind(StrEnum):
    CREATE = "CREATE"
    ONBOARD = "ONBOARD"
    REASSURE = "REASSURE"
    GOVERN = "GOVERN"


# Setups without which an account is none: the account's status shows how they go.
FIRST = (SetupKind.CREATE, SetupKind.ONBOARD)


class SetupStatus(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


LIVE = (SetupStatus.PENDING, SetupStatus.RUNNING, SetupStatus.WAITING)
_LIVE_SQL = text("status IN ('PENDING', 'RUNNING', 'WAITING')")


class StageStatus(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


# Stages that a setup goes past.
OVER = (StageStatus.COMPLETED, StageStatus.SKIPPED)


class IntentState(StrEnum):
    """How far one CreateAccount has come. CALLING found by a later lease means: the outcome of that call is unknown."""

    INTENT = "INTENT"
    CALLING = "CALLING"
    REQUESTED = "REQUESTED"
    DONE = "DONE"
    FAILED = "FAILED"


class StageDefinition(Base):
    """A stage as the workers declare it; they write this table when they start, so the API need not import them."""

    __tablename__ = "stage_definition"

    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    title: Mapped[str]
    description: Mapped[str]
    # [{"benchmark", "version", "id"}]
    controls: Mapped[list[dict[str, str]]] = mapped_column(JSONB())
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    # The account roles whose setups have this stage.
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    # Whether a setup of the kind GOVERN has it.
    governs: Mapped[bool] = mapped_column(server_default=text("false"))


class Setup(Leased, Base):
    __tablename__ = "setup"
    __table_args__ = (
        one_of("kind", SetupKind),
        one_of("status", SetupStatus),
        UniqueConstraint("tenancy_id", "id"),
        Index("uq_setup_live", "account_id", unique=True, postgresql_where=_LIVE_SQL),
        Index("ix_setup_due", "next_attempt_at", postgresql_where=_LIVE_SQL),
        Index("ix_setup_account_id_requested_at_id", "account_id", "requested_at", "id"),
        ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"]),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    account_id: Mapped[UUID]
    kind: Mapped[SetupKind] = mapped_column(EnumText(SetupKind))
    status: Mapped[SetupStatus] = mapped_column(EnumText(SetupStatus), default=SetupStatus.PENDING)
    requested_at: Mapped[Now]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    next_attempt_at: Mapped[Now]


class Stage(Base):
    """One step of a setup. Title and controls are copied from the definition: history does not change with the code."""

    __tablename__ = "stage"
    __table_args__ = (
        one_of("status", StageStatus),
        one_of("error_class", StageErrorClass),
        UniqueConstraint("setup_id", "name"),
        ForeignKeyConstraint(["tenancy_id", "setup_id"], ["setup.tenancy_id", "setup.id"]),
    )

    setup_id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    title: Mapped[str]
    controls: Mapped[list[dict[str, str]]] = mapped_column(JSONB())
    status: Mapped[StageStatus] = mapped_column(EnumText(StageStatus), default=StageStatus.PENDING)
    attempts: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    error_class: Mapped[StageErrorClass | None] = mapped_column(EnumText(StageErrorClass))
    error_aws_request_id: Mapped[str | None]


class Event(Base):
    """One change of an account or its setup, with the rows as they were then: a replay shows what was seen live."""

    __tablename__ = "event"
    __table_args__ = (
        UniqueConstraint("tenancy_id", "position"),
        ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"]),
    )

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    # Among all events of the tenancy, in the order of their commits and without a gap; a trigger sets it at the commit.
    position: Mapped[int | None]
    account: Mapped[dict[str, Any]] = mapped_column(JSONB())
    # [{"key", "value"}], the account's; a trigger keeps them.
    tags: Mapped[list[dict[str, str]]] = mapped_column(JSONB(), server_default=text("'[]'"))
    # The account's latest; null while it has had none.
    setup: Mapped[dict[str, Any] | None] = mapped_column(JSONB())
    stage: Mapped[dict[str, Any] | None] = mapped_column(JSONB())


class EventCounter(Base):
    """How many events a tenancy has: a row of its own, as every insert locks the tenancy's. Written by the trigger."""

    __tablename__ = "event_counter"

    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"), primary_key=True)
    last_position: Mapped[int]


class CreateIntent(Base):
    """The record that makes organizations:CreateAccount happen once, written before the call is made."""

    __tablename__ = "create_intent"
    __table_args__ = (
        one_of("state", IntentState),
        ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"]),
        # An unknown outcome is looked up by e-mail in ListAccounts and by name in ListCreateAccountStatus. What AWS has
        # refused holds no account, so it holds no name or e-mail back from other accounts either.
        Index(
            "uq_create_intent_email",
            "tenancy_id",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("state <> 'FAILED'"),
        ),
        Index(
            "uq_create_intent_account_name",
            "tenancy_id",
            "account_name",
            unique=True,
            postgresql_where=text("state NOT IN ('DONE', 'FAILED')"),
        ),
    )

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    email: Mapped[str]
    account_name: Mapped[str]
    state: Mapped[IntentState] = mapped_column(EnumText(IntentState), default=IntentState.INTENT)
    calls: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    called_at: Mapped[datetime | None]
    # Whether a call was given up without its outcome: it may have made an account, whatever AWS said to a later one.
    outcome_unknown: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    # The request of the last call, once it is known.
    request_id: Mapped[str | None]
    # Whether AWS gave that id in answer to our call: one found by its name may be of an account that others made.
    request_answered: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    # Those whose outcome was known before, and those of others: AWS keeps listing them.
    past_requests: Mapped[list[str]] = mapped_column(ARRAY(Text()), server_default=text("'{}'"), default=list)
