"""Reading from PostgreSQL: a pool of its own, read-only connections, statements kept prepared.

asyncpg's pool resets a connection each time it is given back and looks every statement up by its text and size; for
reads that take PostgreSQL a tenth of a millisecond, that is most of the cost. Here nothing outlives a statement but the
tenancy that row-level security is open for, and every read says whose that must be.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
from cachetools import LRUCache

from server.roles import APP, connect

POOL_SIZE = 10
STATEMENT_TIMEOUT_MS = 15_000
# Longer than PostgreSQL's own limit, so that it ends only what a PostgreSQL that is silent would never answer.
COMMAND_SECONDS = 20.0
ACQUIRE_SECONDS = 10.0
# For how long PostgreSQL is not asked for another connection after it had none left.
GROW_SECONDS = 1.0
CLOSE_SECONDS = 1.0
# Characters of SQL that a connection keeps prepared. For each, PostgreSQL holds 110 (a page) to 250 bytes (many small
# objects) once it keeps the plan, so that its process takes 20 to 40 MB when all are used.
LARGEST_PREPARED = 110_000

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
# The tables are no longer those that the statement was prepared for.
_OUTDATED = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)


class _Connection:
    """A connection, the tenancy it is open for, and its prepared statements."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.tenancy_id: UUID | None = None
        self._prepared: LRUCache[str, Any] = LRUCache(LARGEST_PREPARED, getsizeof=lambda each: len(each.get_query()))

    async def fetch(self, tenancy_id: UUID, sql: str, values: Sequence[object]) -> bytes | None:
        try:
            if self.tenancy_id != tenancy_id:
                await self._enter(tenancy_id)
            statement = self._prepared[sql] if sql in self._prepared else await self._prepare(sql)
        except asyncio.CancelledError:
            # asyncpg ends a command with its execution. One that was only prepared would go on for PostgreSQL, with its
            # snapshot and its time limit.
            self.connection.terminate()
            raise
        # fetchval would ask for one row alone, and PostgreSQL takes longer to stop early than to come to the end.
        [row] = await statement.fetch(*values)
        value: bytes | None = row[0]
        return value

    async def _prepare(self, sql: str) -> Any:
        statement = await self.connection.prepare(sql)
        if len(sql) <= LARGEST_PREPARED:
            self._prepared[sql] = statement
        return statement

    async def _enter(self, tenancy_id: UUID) -> None:
        """Open row-level security for the tenancy, and for none while that is under way."""
        self.tenancy_id = None
        await self.connection.execute("select set_config('app.tenancy_id', $1, false)", str(tenancy_id))
        self.tenancy_id = tenancy_id

    def forget(self) -> None:
        """Prepare every statement anew."""
        self._prepared.clear()

    @property
    def is_closed(self) -> bool:
        return bool(self.connection.is_closed())


class Reader:
    """Reads for one tenancy at a time as the app role of `dsn`, a `postgresql://` URL.

    It connects when it has to, and again after PostgreSQL was away.
    """

    def __init__(self, dsn: str, *, pool_size: int = POOL_SIZE, command_seconds: float = COMMAND_SECONDS) -> None:
        self._dsn = dsn
        self._command_seconds = command_seconds
        # How many more connections may be made.
        self._places = pool_size
        self._free: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        # When to ask for another connection; 0 until PostgreSQL has refused one.
        self._grow_at = 0.0
        self._waiting: deque[asyncio.Future[_Connection]] = deque()
        self._closed = False

    async def fetch(self, tenancy_id: UUID, sql: str, values: Sequence[object] = ()) -> bytes | None:
        """The single value of a statement's single row, with row-level security open for the tenancy alone.

        Raises TimeoutError when PostgreSQL is silent or no connection becomes free, OSError or asyncpg's errors when it
        cannot be reached, DatabaseRefused when it does not let the server in as it should be, InterfaceError when the
        reader is closed. A connection that was lost is replaced, and the statement tried again, once. When PostgreSQL
        has too few connections, those that it has are shared.
        """
        connection = self._take(tenancy_id) or await self._wait()
        try:
            try:
                return await connection.fetch(tenancy_id, sql, values)
            except _LOST:
                # Others may be lost too, so only a new one will do.
                connection = await self._replace(connection)
            except _OUTDATED:
                connection.forget()
            return await connection.fetch(tenancy_id, sql, values)
        except asyncpg.QueryCanceledError:
            if self._closed:
                raise _closed() from None
            raise
        except TimeoutError:
            # Asking a silent PostgreSQL to cancel would wait once more, and its other connections are no better.
            connection.connection.terminate()
            self._close_free()
            raise
        finally:
            self._give_back(connection)

    async def close(self) -> None:
        """Close every connection and make none again; whatever is under way, waits or comes later fails."""
        self._closed = True
        for connecting in self._connecting:
            connecting.cancel()
        while self._waiting:
            self._fail_next(_closed())
        # That asks PostgreSQL to cancel, too: it does not look for lost connections while it works on a statement.
        closing = [each.connection.close(timeout=CLOSE_SECONDS) for each in (*self._busy, *self._free)]
        self._free.clear()
        await asyncio.gather(*self._connecting, *closing, return_exceptions=True)

    def _take(self, tenancy_id: UUID) -> _Connection | None:
        """A free connection, if possible one that is open for the tenancy already."""
        free = self._free
        if not free:
            return None
        connection = free.pop()
        if connection.tenancy_id != tenancy_id:
            for at, other in enumerate(free):
                if other.tenancy_id == tenancy_id:
                    free[at], connection = connection, other
                    break
        self._busy.add(connection)
        return connection

    async def _wait(self, *, first: bool = False) -> _Connection:
        """The next connection that becomes free or is made; behind everybody who waits already, or before them."""
        if self._closed:
            raise _closed()
        waiter: asyncio.Future[_Connection] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        self._grow()
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_back(waiter.result())
            raise

    async def _replace(self, lost: _Connection) -> _Connection:
        self._drop(lost)
        # It has waited before.
        return await self._wait(first=True)

    def _grow(self) -> None:
        """Begin to connect, when somebody waits and there is a place.

        Not whoever waits connects, so that the next connection, however it comes, is for who has waited longest.
        """
        if not self._places or len(self._waiting) <= len(self._connecting):
            return
        if self._grow_at:
            now = asyncio.get_running_loop().time()
            if now < self._grow_at and (self._busy or self._free or self._connecting):
                return
            # One try at a time.
            self._grow_at = now + GROW_SECONDS
        self._places -= 1
        connecting = asyncio.create_task(self._connect())
        self._connecting.add(connecting)
        connecting.add_done_callback(self._end_connecting)

    def _end_connecting(self, connecting: asyncio.Task[None]) -> None:
        self._connecting.discard(connecting)
        if not connecting.cancelled():
            self._grow()

    async def _connect(self) -> None:
        """Make a connection, for which a place has been taken."""
        try:
            made = await connect(
                APP,
                self._dsn,
                command_timeout=self._command_seconds,
                # Only for the statement that opens a tenancy; the others are kept here.
                statement_cache_size=1,
                server_settings={
                    "application_name": "freehold-reader",
                    "default_transaction_read_only": "on",
                    "jit": "off",
                    # Moments are shown in the time zone of the connection.
                    "timezone": "UTC",
                    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                },
            )
        except asyncpg.TooManyConnectionsError as error:
            self._places += 1
            self._do_with_fewer(error)
        except Exception as error:
            self._places += 1
            self._fail_next(error)
        else:
            self._pass_on(_Connection(made))

    def _do_with_fewer(self, refusal: Exception) -> None:
        """Let who waits have the connections that there are, or fail them when there is none."""
        self._grow_at = asyncio.get_running_loop().time() + GROW_SECONDS
        while self._waiting and self._free:
            self._pass_on(self._free.pop())
        # The one that has been refused still counts among those that connect.
        if not self._busy and not self._free and sum(not each.done() for each in self._connecting) == 1:
            while self._waiting:
                self._fail_next(refusal)

    def _give_back(self, connection: _Connection) -> None:
        if connection not in self._busy:
            # It has been dropped, and could not be replaced.
            return
        if connection.is_closed:
            self._drop(connection)
            self._grow()
            return
        self._busy.discard(connection)
        self._pass_on(connection)

    def _drop(self, lost: _Connection) -> None:
        self._busy.discard(lost)
        lost.connection.terminate()
        self._places += 1
        # It leaves room for another.
        self._grow_at = 0.0

    def _pass_on(self, connection: _Connection) -> None:
        """Give a connection to whoever has waited longest, or keep it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                # From now on, so that closing finds it.
                self._busy.add(connection)
                waiter.set_result(connection)
                return
        self._free.append(connection)

    def _fail_next(self, error: Exception) -> None:
        """Fail whoever has waited longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                return

    def _close_free(self) -> None:
        while self._free:
            self._drop(self._free.pop())


def _closed() -> asyncpg.InterfaceError:
    return asyncpg.InterfaceError("The reader is closed.")
