"""Tables of account types: named groups of accounts, each one organizational unit in AWS."""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, EnumText, NewId, Now, one_of
from server.leases import Recurring, StageErrorClass


class AccountTypeState(StrEnum):
    """A deleted type stays as a row: accounts that are no more, and events, were of it."""

    ACTIVE = "ACTIVE"
    DELETING = "DELETING"
    DELETED = "DELETED"


class AccountType(Recurring, Base):
    __tablename__ = "account_type"
    __table_args__ = (
        one_of("state", AccountTypeState),
        one_of("error_class", StageErrorClass),
        UniqueConstraint("tenancy_id", "id"),
        # Two types that had one unit would have each other's policies. Partial, as the columns of a full one are a key:
        # whoever writes a key waits for all who refer to the row.
        Index(
            "uq_account_type_organizational_unit_id",
            "tenancy_id",
            "organizational_unit_id",
            unique=True,
            postgresql_where=text("organizational_unit_id IS NOT NULL"),
        ),
        Index(
            "uq_account_type_name",
            "tenancy_id",
            text("lower(name)"),
            unique=True,
            postgresql_where=text("state <> 'DELETED'"),
        ),
        Index("ix_account_type_tenancy_id_created_at_id", "tenancy_id", "created_at", "id"),
        Index("ix_account_type_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    # Holds Freehold's own accounts: nobody may add, move or remove an account there, or delete it.
    foundation: Mapped[bool] = mapped_column(default=False)
    state: Mapped[AccountTypeState] = mapped_column(
        EnumText(AccountTypeState), server_default=text("'ACTIVE'"), default=AccountTypeState.ACTIVE
    )
    organizational_unit_id: Mapped[str | None]
    # The name that the unit has in AWS, or that AWS is asked to make it under, written before the call: after a call
    # whose answer was lost it is looked for under this one, whatever the type is called by then.
    aws_name: Mapped[str | None]
    # How many accounts are of this type; kept by triggers on `account`.
    account_count: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    created_at: Mapped[Now]
