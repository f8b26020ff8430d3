"""Work that a worker does under a lease: the columns of its row, and the ways in which it does not come to its end."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column


class Leased:
    """The columns of a row that workers work on, one at a time."""

    if TYPE_CHECKING:
        # The table's own.
        id: Mapped[UUID]
        tenancy_id: Mapped[UUID]
        next_attempt_at: Mapped[Any]
    # Who works on it, until when, and the fencing token that every write compares first.
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    lease_until: Mapped[datetime | None]
    # How many wake-ups were sent for it since the last claim, which tells their job ids apart.
    hint_number: Mapped[int] = mapped_column(server_default=text("0"), default=0)


class StageErrorClass(StrEnum):
    """TRANSIENT is retried by itself, PERMANENT would fail again, NEEDS_PERSON says what somebody has to do."""

    TRANSIENT = "TRANSIENT"
    PERMANENT = "PERMANENT"
    NEEDS_PERSON = "NEEDS_PERSON"


@dataclass(frozen=True, slots=True)
class StageError:
    """Why work waits or has failed. `code` is AWS's own where there is one; `message` says what to do."""

    code: str
    message: str
    error_class: StageErrorClass
    aws_request_id: str | None = None

    @property
    def columns(self) -> dict[str, object]:
        """The values of the columns that hold it."""
        return {
            "error_code": self.code,
            "error_message": self.message,
            "error_class": self.error_class,
            "error_aws_request_id": self.aws_request_id,
        }


class LeaseLost(Exception):
    """Another worker holds the work now, or it is over; whoever catches this stops without writing anything."""
