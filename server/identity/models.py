"""Tables of identity: API tokens."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, EnumText, NewId, Now, one_of


class Role(StrEnum):
    """What a viewer may do, from most to least."""

    ADMIN = "ADMIN"
    OPERATOR = "OPERATOR"
    USER = "USER"
    READONLY = "READONLY"

    def includes(self, other: "Role") -> bool:
        """Whether whoever has this role may do what needs the other."""
        order = list(Role)
        return order.index(self) <= order.index(other)


class ApiToken(Base):
    """A program's credential. Only a hash of the secret is kept; the prefix lets a person tell tokens apart."""

    __tablename__ = "api_token"
    __table_args__ = (
        one_of("role", Role),
        UniqueConstraint("hash"),
        Index("uq_api_token_name", "tenancy_id", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )

    id: Mapped[NewId]
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    name: Mapped[str]
    prefix: Mapped[str]
    hash: Mapped[bytes] = mapped_column(LargeBinary())
    role: Mapped[Role] = mapped_column(EnumText(Role))
    created_at: Mapped[Now]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
