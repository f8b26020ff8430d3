"""Engine, declarative base and the one way to write: a transaction committed at the edge."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Dialect, MetaData, Text, TypeDecorator, Uuid, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, mapped_column

from server.roles import CONNECT_SECONDS, DatabaseRole, connect

# A process that is frozen, or cut off, within a transaction keeps its locks for so long: less than a lease lasts, or
# nobody could carry its setups on, and whoever tried would wait for it.
IDLE_SECONDS = 5.0

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Every table. Text is `text`, time is `timestamptz`; there are no relationships: queries say what they read."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {str: Text(), datetime: DateTime(timezone=True)}  # noqa: RUF012 - SQLAlchemy's own protocol


# UUIDv7 sorts by creation, which keeps new rows together on disk and makes ids sortable.
NewId = Annotated[UUID, mapped_column(Uuid(), primary_key=True, server_default=text("uuidv7()"))]
Now = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=text("now()"))]


class EnumText(TypeDecorator[StrEnum]):
    """An enum kept as text, so that adding a value needs no `ALTER TYPE`; `one_of` is the check beside it."""

    impl = Text
    cache_ok = True

    def __init__(self, values: type[StrEnum]) -> None:
        super().__init__()
        self.values = values

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(self.values(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.values(value)


class MinifiedJson(TypeDecorator[dict[str, Any]]):
    """A JSON object as text without needless characters, in its author's order; `is_object` is the check beside it.

    A column of PostgreSQL's type json would hold whatever spaces and escapes its writer puts in.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str | None:
        return None if value is None else minified(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, Any] | None:
        return None if value is None else json.loads(value)


def minified(value: Mapping[str, Any]) -> str:
    """A JSON object without needless characters. Raises ValueError for NaN and infinities, which JSON lacks."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def is_object(column: str) -> CheckConstraint:
    """A check that a text column holds a JSON object: reads copy it into their responses as it is."""
    return CheckConstraint(f"{column} IS JSON OBJECT", name=column)


def one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """A check that a text column holds one of an enum's values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def create_engine(
    url: str,
    role: DatabaseRole | None = None,
    *,
    pool_size: int = 10,
    name: str = "freehold",
    command_seconds: float | None = None,
) -> AsyncEngine:
    """An engine for a `postgresql://` URL; `name` shows in pg_stat_activity.

    With a `role` every connection has it, or raises DatabaseRefused. Connections are tested before use, as PostgreSQL
    may have restarted. A statement without an answer after `command_seconds` raises TimeoutError, and PostgreSQL ends a
    transaction in which nothing was asked for `IDLE_SECONDS`; None waits for ever, as a migration may have to.
    """
    settings = {"application_name": name}
    if command_seconds is not None:
        settings["idle_in_transaction_session_timeout"] = str(int(IDLE_SECONDS * 1000))
    options: dict[str, Any] = {} if role is None else {"async_creator_fn": partial(connect, role)}
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=10,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": command_seconds,
            "server_settings": settings,
            **options,
        },
    )


@asynccontextmanager
async def transaction(engine: AsyncEngine, tenancy_id: UUID | None = None) -> AsyncIterator[AsyncSession]:
    """One transaction: committed when the block ends, rolled back when it raises. Nothing else in Freehold commits.

    `tenancy_id` opens row-level security for that tenancy; the worker role needs none and filters by tenancy itself.
    """
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        if tenancy_id is not None:
            await session.execute(text("SELECT set_config('app.tenancy_id', :id, true)"), {"id": str(tenancy_id)})
        yield session
