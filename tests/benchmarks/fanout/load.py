"""Many subscribers in a process of their own: `python -m tests.benchmarks.fanout.load PORT NUMBER < the messages`.

Each sends the messages of stdin, one a line, and then counts what it receives. A line on stdout says when everybody has
received another event, as JSON: `at`, the time of the last receipt by the clock that all processes of a machine share,
and `size`, the bytes of a frame.
"""

import asyncio
import json
import resource
import sys
import time
from functools import partial
from typing import cast

import uvloop

AT_A_TIME = 50
REQUEST = (
    "GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A


class Receipts:
    """Says when every client has received the next event."""

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self._received: dict[int, int] = {}

    def add(self, number: int, size: int) -> None:
        """A client has received its event of this number."""
        received = self._received.get(number, 0) + 1
        self._received[number] = received
        if received == self._clients:
            del self._received[number]
            print(json.dumps({"at": time.monotonic(), "size": size}), flush=True)


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, with a mask of zeros."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return bytes([opcode]) + size + bytes(4) + payload


class Client(asyncio.Protocol):
    def __init__(self, messages: list[bytes], receipts: Receipts) -> None:
        self._messages = messages
        self._receipts = receipts
        self._buffer = b""
        self._events = 0
        self._accepted = False
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        port = self._transport.get_extra_info("peername")[1]
        self._transport.write(REQUEST.format(port=port).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        sys.exit(f"a connection was closed: {exc} {self._buffer[:200]!r}")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._accepted:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._accepted = True
            self._transport.write(frame(TEXT, self._messages[0]))
        at = 0
        while len(buffer) - at >= 2:
            start, length = at + 2, buffer[at + 1]
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(buffer[at + 2 : start], "big")
            if len(buffer) < start + length:
                break
            self._receive(buffer[at], buffer, start, length)
            at = start + length
        self._buffer = buffer[at:]

    def _receive(self, opcode: int, buffer: bytes, start: int, length: int) -> None:
        if opcode == TEXT:
            if length > 200:
                self._receipts.add(self._events, length)
                self._events += 1
                if not self.subscribed.done():
                    self.subscribed.set_result(None)
                return
            text = buffer[start : start + length]
            if b"connection_ack" in text:
                self._transport.write(frame(TEXT, self._messages[1]))
            elif b'"ping"' in text:
                self._transport.write(frame(TEXT, b'{"type":"pong"}'))
            else:
                sys.exit(f"not expected: {text!r}")
        elif opcode == PING:
            self._transport.write(frame(PONG, buffer[start : start + length]))
        else:
            sys.exit(f"a frame {opcode:#x}: {buffer[start : start + length]!r}")


async def run(port: int, number: int, messages: list[bytes]) -> None:
    receipts, limit = Receipts(number), asyncio.Semaphore(AT_A_TIME)

    async def subscribe() -> None:
        async with limit:
            make = partial(Client, messages, receipts)
            _, client = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
            await client.subscribed

    await asyncio.gather(*(subscribe() for _ in range(number)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(run(int(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer.read().splitlines()))
