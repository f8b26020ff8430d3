"""A client that costs little: requests made beforehand, sent over a few connections that are kept, answers counted."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import httptools

CONNECTIONS = 16


@dataclass
class Load:
    """What one server answered in one turn; times in seconds."""

    requests: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class _Client(asyncio.Protocol):
    """One connection: sends the next request as soon as an answer is complete."""

    def __init__(self, requests: Sequence[bytes], first: int, until: float, load: Load) -> None:
        self._requests = requests
        self._next = first
        self._until = until
        self._load = load
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._beginning = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._load.failures.append(f"the connection was closed: {exc}")
            self.done.set_result(None)

    def on_body(self, body: bytes) -> None:
        if not self._beginning:
            self._beginning = body[:200]

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200 or not self._beginning.startswith(b'{"data":{'):
            self._load.failures.append(f"{status} {self._beginning!r}")
        self._load.requests += 1
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if time.monotonic() >= self._until:
            self.done.set_result(None)
            self._transport.close()
            return
        self._beginning = b""
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 7


async def put_load(port: int, requests: Sequence[bytes], seconds: float) -> Load:
    """Ask a server on this machine over CONNECTIONS connections for so many seconds.

    What is under way at the end is waited for and counted, with the time that it takes.
    """
    loop, load = asyncio.get_running_loop(), Load()
    started = time.monotonic()
    clients = [
        (await loop.create_connection(partial(_Client, requests, n, started + seconds, load), "127.0.0.1", port))[1]
        for n in range(CONNECTIONS)
    ]
    await asyncio.gather(*(client.done for client in clients))
    load.seconds = time.monotonic() - started
    return load


def http_request(port: int, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST to `/graphql`."""
    fields: dict[str, Any] = {
        "host": f"127.0.0.1:{port}",
        "content-type": "application/json",
        "accept": "application/json",
        "content-length": len(body),
        **headers,
    }
    lines = [f"{name}: {value}\r\n" for name, value in fields.items()]
    return f"POST /graphql HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body
