"""The harness's own eyes on PostgreSQL, which may be away at any moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from server.embedded import Services, directory
from server.embedded.postgres import SUPERUSER
from server.outages import is_away

AGAIN_SECONDS = 0.1


class Database:
    """One connection, opened anew whenever it breaks. `patiently` waits for PostgreSQL to be back."""

    def __init__(self, services: Services) -> None:
        password = directory.passwords(services.data_dir, [SUPERUSER])[SUPERUSER]
        parts = urlsplit(services.owner_url)
        self._url = f"postgresql://{SUPERUSER}:{password}@{parts.hostname}:{parts.port}{parts.path}"
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._busy = asyncio.Lock()

    async def patiently(self, query: str, *values: Any) -> list[asyncpg.Record]:
        """The rows, however long PostgreSQL takes to be there. The query may run more than once."""
        while True:
            try:
                async with self._busy:
                    return await self._fetch(query, *values)
            except Exception as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(AGAIN_SECONDS)

    async def end_half_of_the_backends(self) -> None:
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        await self.patiently(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others} AND random() < 0.5"
        )

    async def _fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url, timeout=5)
        try:
            rows: list[asyncpg.Record] = await self._connection.fetch(query, *values, timeout=5)
        except Exception:
            self._connection.terminate()
            self._connection = None
            raise
        return rows

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()


@asynccontextmanager
async def opened(services: Services) -> AsyncIterator[Database]:
    database = Database(services)
    try:
        yield database
    finally:
        database.close()
