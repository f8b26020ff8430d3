"""A client that costs little: requests made beforehand, sent over a few connections that are kept, answers counted."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, takewhile
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
    """One connection: sends the next request as soon as an answer is complete, and closes when there is none."""

    def __init__(self, requests: Iterator[bytes], load: Load) -> None:
        self._requests = requests
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
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._beginning = b""
        self._transport.write(request)


async def put_load(port: int, requests: Sequence[bytes], seconds: float) -> Load:
    """Ask a server on this machine over CONNECTIONS connections for so many seconds.

    What is under way at the end is waited for and counted, with the time that it takes.
    """
    until = time.monotonic() + seconds
    return await _ask(port, takewhile(lambda _: time.monotonic() < until, cycle(requests)))


async def put_requests(port: int, requests: Iterable[bytes]) -> Load:
    """Send each request once; raises AssertionError when one fails."""
    load = await _ask(port, iter(requests))
    assert not load.failures, load.failures[0]
    return load


async def _ask(port: int, requests: Iterator[bytes]) -> Load:
    loop, load = asyncio.get_running_loop(), Load()
    started = time.monotonic()
    clients = [
        (await loop.create_connection(partial(_Client, requests, load), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
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
