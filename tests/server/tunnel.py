"""A TCP forwarder in front of PostgreSQL or Valkey, which a test can take away and bring back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit


class Tunnel:
    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        """The URL of the service, through this tunnel."""
        user = self._to.netloc.rpartition("@")[0]
        return urlunsplit(
            self._to._replace(netloc=f"{user}@127.0.0.1:{self._port}" if user else f"127.0.0.1:{self._port}")
        )

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse new connections and break those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()
        self.thaw()

    def freeze(self) -> None:
        """Keep every connection, old or new, open and silent, as a server that hangs does."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, back = await asyncio.open_connection(self._to.hostname, self._to.port)
            self._open |= {writer, back}
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
            self._open -= {writer, back}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def tunnel(url: str) -> AsyncIterator[Tunnel]:
    tunnel = Tunnel(url)
    await tunnel.up()
    try:
        yield tunnel
    finally:
        await tunnel.down()
