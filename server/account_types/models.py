"""Tables of account types: named groups of accounts, each one organizational unit in AWS."""

from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, NewId, Now


class AccountType(Base):
    __tablename__ = "account_type"
    __table_args__ = (
        UniqueConstraint("tenancy_id", "id"),
        Index("uq_account_type_name", "tenancy_id", text("lower(name)"), unique=True),
        Index("ix_account_type_tenancy_id_created_at_id", "tenancy_id", "created_at", "id"),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    # Holds Freehold's own accounts: nobody may add, move or remove an account there, or delete it.
    foundation: Mapped[bool] = mapped_column(default=False)
    organizational_unit_id: Mapped[str | None]
    # How many accounts are of this type; kept by triggers on `account`.
    account_count: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    created_at: Mapped[Now]
