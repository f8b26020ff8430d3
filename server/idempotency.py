"""Idempotency keys: a client that did not hear the answer asks again under the same key, and nothing is done twice.

    return await once(session, tenancy_id, key, Request("createAccount", {...}), IdempotencyKey.account_id, work)

A key is the tenancy's, whichever mutation it was used for; those of the items of batches are apart, for each mutation
that takes them. It is written in the transaction that does the work, so a
request that was refused leaves none. It is kept for `KEPT`, and after that as good as new.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, LargeBinary, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from server.database import Base, Now
from server.errors import UserErrorCode, refuse

KEPT = timedelta(days=30)
KEY_LENGTH = 255
KEY = re.compile(r"[!-~]+")
FIELD = "idempotencyKey"
ITEM_FIELD = "key"
BATCH = 200


class IdempotencyKey(Base):
    """A request that was served, and what it made."""

    __tablename__ = "idempotency_key"
    __table_args__ = (
        # What is deleted takes its key along, so that no key stands in the way of a deletion.
        ForeignKeyConstraint(["tenancy_id", "account_id"], ["account.tenancy_id", "account.id"], ondelete="CASCADE"),
        Index("ix_idempotency_key_created_at", "created_at"),
    )

    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    mutation: Mapped[str]
    # Of the input, which may hold what nobody should read here.
    digest: Mapped[bytes] = mapped_column(LargeBinary())
    created_at: Mapped[Now]
    # What was made, in a nullable column for each kind; empty until the work of its transaction is done.
    account_id: Mapped[UUID | None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a mutation. Two requests are the same when their inputs are, whatever their order of fields.

    A field that is None or empty counts as absent: an input that later grows an optional field stays the same.
    """

    mutation: str
    input: Mapping[str, Any]
    # Whether it is an item of a batch.
    is_item: bool = False

    def kept_under(self, key: str) -> str:
        """What the key is called in the table: no key that somebody sends has a space."""
        return f"{self.mutation} {key}" if self.is_item else key

    @property
    def field(self) -> str:
        """The field of the input that has the key."""
        return ITEM_FIELD if self.is_item else FIELD

    @property
    def digest(self) -> bytes:
        given = {name: value for name, value in self.input.items() if value not in (None, [], {})}
        canonical = json.dumps([self.mutation, given], sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).digest()


async def once(
    session: AsyncSession,
    tenancy_id: UUID,
    key: str | None,
    request: Request,
    result: InstrumentedAttribute[UUID | None],
    work: Callable[[], Awaitable[UUID]],
) -> UUID:
    """The id of what `work` makes, or has made for the same request under this key; without a key it always works.

    `result` is the column of IdempotencyKey that holds the id. Of requests that meet, one works and the others wait for
    its transaction. Raises Refused: VALIDATION for a malformed key, IDEMPOTENCY_CONFLICT for one of another request.
    """
    if key is None:
        return await work()
    _check(key, request.field)
    key = request.kept_under(key)
    mine = and_(IdempotencyKey.tenancy_id == tenancy_id, IdempotencyKey.key == key)
    if not await _take(session, tenancy_id, key, request):
        mutation, digest, made_at, made = (
            await session.execute(
                select(IdempotencyKey.mutation, IdempotencyKey.digest, IdempotencyKey.created_at, result).where(mine)
            )
        ).one()
        if digest != request.digest:
            raise _conflict(mutation, made_at, request)
        assert isinstance(made, UUID), "the transaction that takes a key writes what it made"
        return made
    done = await work()
    await session.execute(
        update(IdempotencyKey).where(mine).values({result: done}).execution_options(synchronize_session=False)
    )
    return done


async def forget_expired(session: AsyncSession) -> int:
    """Delete keys that are no longer kept, at most `BATCH`; returns how many. What is being used just now is left."""
    expired = (
        select(IdempotencyKey.tenancy_id, IdempotencyKey.key)
        .where(IdempotencyKey.created_at < func.now() - KEPT)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .cte("expired")
    )
    forgotten = await session.execute(
        delete(IdempotencyKey)
        .where(IdempotencyKey.tenancy_id == expired.c.tenancy_id, IdempotencyKey.key == expired.c.key)
        .returning(IdempotencyKey.key)
        .execution_options(synchronize_session=False)
    )
    return len(forgotten.all())


async def _take(session: AsyncSession, tenancy_id: UUID, key: str, request: Request) -> bool:
    """Write the key unless it is there and still kept; waits for a transaction that is just writing it."""
    values = {"mutation": request.mutation, "digest": request.digest}
    results = {column.key: None for column in IdempotencyKey.__table__.columns if column.nullable}
    written = (
        insert(IdempotencyKey)
        .values(tenancy_id=tenancy_id, key=key, **values)
        .on_conflict_do_update(
            index_elements=[IdempotencyKey.tenancy_id, IdempotencyKey.key],
            set_={**values, **results, "created_at": func.now()},
            where=IdempotencyKey.created_at < func.now() - KEPT,
        )
        .returning(IdempotencyKey.key)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(written)).first() is not None


def _check(key: str, field: str) -> None:
    if not key:
        raise refuse(UserErrorCode.VALIDATION, "The idempotency key is empty; leave it out, or send a UUID.", field)
    if len(key) > KEY_LENGTH:
        raise refuse(
            UserErrorCode.VALIDATION,
            f"The idempotency key has {len(key)} characters; at most {KEY_LENGTH} are allowed.",
            field,
        )
    if not KEY.fullmatch(key):
        raise refuse(
            UserErrorCode.VALIDATION,
            "An idempotency key may hold ASCII letters, digits and punctuation, without spaces; a UUID serves well.",
            field,
        )


def _conflict(mutation: str, made_at: datetime, request: Request) -> Exception:
    used = "with another input" if mutation == request.mutation else f"for {mutation}"
    return refuse(
        UserErrorCode.IDEMPOTENCY_CONFLICT,
        f"This idempotency key was used {used} at {made_at:%Y-%m-%d %H:%M:%S} UTC; a new request needs a new key.",
        request.field,
    )
