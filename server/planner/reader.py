"""Reading from PostgreSQL: a pool of its own, read-only connections, statements kept prepared."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

POOL_SIZE = 10
STATEMENT_TIMEOUT_MS = 15_000
# Longer than PostgreSQL's own limit, so that it ends only what a PostgreSQL that is silent would never answer.
COMMAND_SECONDS = 20.0
ACQUIRE_SECONDS = 10.0

# A connection that PostgreSQL, or the network, has ended; the statement only reads, so it can be sent again.
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg says when it learns of the loss in the middle of beginning the next statement.
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    ConnectionError,
)


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """Remembers whose tenancy row-level security is open for, so that it is set only when it changes."""

    tenancy_id: UUID | None = None

    async def enter(self, tenancy_id: UUID) -> None:
        if self.tenancy_id != tenancy_id:
            self.tenancy_id = None
            await self.execute("select set_config('app.tenancy_id', $1, false)", str(tenancy_id))
            self.tenancy_id = tenancy_id


class Reader:
    """Reads for one tenancy at a time as the app role of `dsn`, a `postgresql://` URL."""

    def __init__(self, dsn: str, *, pool_size: int = POOL_SIZE, command_seconds: float = COMMAND_SECONDS) -> None:
        self._dsn = dsn
        self._pool_size = pool_size
        self._command_seconds = command_seconds
        self._pool: Any = None

    async def open(self) -> None:
        """Connects; raises OSError or asyncpg.PostgresError when PostgreSQL cannot be reached."""
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=1,
            max_size=self._pool_size,
            connection_class=_Connection,
            # Nothing a reader does outlives its statement but the tenancy, which every reading sets for itself.
            reset=_keep,
            # A compiled statement is often longer than asyncpg would keep.
            max_cacheable_statement_size=0,
            statement_cache_size=256,
            max_cached_statement_lifetime=0,
            timeout=5,
            command_timeout=self._command_seconds,
            server_settings={
                "application_name": "freehold-reader",
                "default_transaction_read_only": "on",
                "jit": "off",
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            },
        )

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def fetch(self, tenancy_id: UUID, sql: str, args: Sequence[object] = ()) -> bytes | None:
        """The single value of a statement's single row, with row-level security open for the tenancy alone.

        Raises TimeoutError when PostgreSQL is silent; the next statement goes over a new connection.
        """
        try:
            return await self._fetch(tenancy_id, sql, args)
        except _LOST:
            # The other connections were lost with it.
            await self._pool.expire_connections()
        except asyncpg.InvalidCachedStatementError:
            pass
        return await self._fetch(tenancy_id, sql, args)

    async def _fetch(self, tenancy_id: UUID, sql: str, args: Sequence[object]) -> bytes | None:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            try:
                await connection.enter(tenancy_id)
                value: bytes | None = await connection.fetchval(sql, *args)
            except TimeoutError:
                # Asking a silent PostgreSQL to cancel would wait once more, and its other connections are no better.
                connection.terminate()
                await self._pool.expire_connections()
                raise
            return value


async def _keep(_: object) -> None:
    """In place of asyncpg's reset, which costs as much as a short read."""
