"""Work that a worker does under a lease: the columns of its row, and the ways in which it does not come to its end."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from server.database import EnumText
from server.jobs import Job, enqueue


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


# What nobody tries again by himself.
LASTING = (StageErrorClass.PERMANENT, StageErrorClass.NEEDS_PERSON)
NO_ERROR: dict[str, object] = {
    "error_code": None,
    "error_message": None,
    "error_class": None,
    "error_aws_request_id": None,
}


class Refusable:
    """The columns that hold the error of the last attempt."""

    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    error_class: Mapped[StageErrorClass | None] = mapped_column(EnumText(StageErrorClass))
    error_aws_request_id: Mapped[str | None]


class Recurring(Refusable, Leased):
    """A row that AWS is kept in line with: due when what is wanted of it has changed, and at rest when AWS has that."""

    # When a worker is to look at it again; null when there is nothing to do.
    next_attempt_at: Mapped[datetime | None]
    # How often in a row the work has stopped at an error that passes.
    attempts: Mapped[int] = mapped_column(server_default=text("0"), default=0)
    # When AWS was last asked something about it, until there is an answer: the call may reach AWS some seconds later.
    called_at: Mapped[datetime | None]


R = TypeVar("R", bound=Recurring)


@dataclass(frozen=True, slots=True)
class StageError:
    """Why work waits or has failed. `code` is AWS's own where there is one; `message` says what to do."""

    code: str
    message: str
    error_class: StageErrorClass
    aws_request_id: str | None = None

    def __str__(self) -> str:
        """For a line of the log."""
        request = "" if self.aws_request_id is None else f" (AWS request {self.aws_request_id})"
        return f"{self.code}: {self.message}{request}"

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


def change(row: Refusable, **values: object) -> None:
    """Set attributes by their names."""
    for name, value in values.items():
        setattr(row, name, value)


async def wake(session: AsyncSession, model: type[R], job: Job, ids: Iterable[UUID]) -> None:
    """Have the rows worked on now: there is something to do, or to look at again."""
    await session.flush()
    woken = (
        update(model)
        .where(model.id.in_([*ids]))
        .values(next_attempt_at=func.now(), attempts=0, hint_number=model.hint_number + 1)
        .returning(model.id, model.tenancy_id, model.lease_token, model.hint_number)
        .execution_options(synchronize_session=False)
    )
    for row in (await session.execute(woken)).all():
        await enqueue(session, row.tenancy_id, job, row.id, attempt=f"{row.lease_token}.{row.hint_number}")


async def hold(session: AsyncSession, row_id: UUID, token: int, *, model: type[R]) -> R:
    """Lock the row for a write by the holder of `token`; raises LeaseLost when the lease has moved on.

    The first statement of every transaction in which a worker writes: a worker that was presumed dead writes nothing.
    """
    held = select(model).where(model.id == row_id, model.lease_token == token, model.next_attempt_at.is_not(None))
    row = (await session.scalars(held.with_for_update(key_share=True))).one_or_none()
    if row is None:
        raise LeaseLost(f"{model.__name__} {row_id}: lease {token} is no longer current")
    return row


async def rest(session: AsyncSession, row: Recurring) -> None:
    """There is nothing more to do: the lease is given up."""
    row.next_attempt_at = row.lease_owner = row.lease_until = None
    row.attempts = 0
    await session.flush()


async def wait_for_call(session: AsyncSession, row: Recurring, quarantine: timedelta) -> bool:
    """Whether a call of before may still reach AWS, where it would undo a later one.

    It does so for `quarantine` at most when nobody knows its answer; the lease is given up until then.
    """
    if row.called_at is None:
        return False
    heard_by = row.called_at + quarantine
    if (await session.execute(select(func.clock_timestamp()))).scalar_one() >= heard_by:
        return False
    row.next_attempt_at = heard_by
    row.lease_owner = row.lease_until = None
    await session.flush()
    return True


async def defer(session: AsyncSession, row: Recurring, delay: timedelta, *, hint_number: int) -> None:
    """The lease is given up, and the work goes on after `delay`; at once if somebody has woken it since that number."""
    row.attempts += 1
    if row.hint_number != hint_number:
        return
    row.next_attempt_at = (await session.execute(select(func.clock_timestamp() + delay))).scalar_one()
    row.lease_owner = row.lease_until = None
