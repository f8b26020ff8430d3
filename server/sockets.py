"""WebSockets of uvicorn that can be sent to without waiting, within a bound on what a client has not taken yet."""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

# The ASGI extension under which an application finds `Socket.post` in the scope of a WebSocket.
POST = "freehold.post"
TOO_SLOW = 4420
TOO_SLOW_REASON = "Too slow. Connect again and ask for what comes after the last event that you have received."
# What may wait for one client here, behind what its connection holds in the kernels of both sides.
MOST_MESSAGES, MOST_BYTES = 1000, 1024 * 1024
# How long a client that reads nothing is given to take the close frame and answer it.
CLOSE_SECONDS = 10.0

# Sends a frame that `text_frame` has made.
Post: TypeAlias = Callable[[bytes], None]


def text_frame(text: bytes) -> bytes:
    """The bytes on the wire of a text message of a server, the same for every client."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)


class Socket(WebSocketsSansIOProtocol):
    """A connection of uvicorn's. It knows no extension of the protocol, so that a frame is the same for everybody."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # How many bytes have been posted since any wait, and how many that were at the end of each frame that waits.
        self._posted = 0
        self._ends: deque[int] | None = None
        self._gave_up = False

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[POST] = self.post

    def post(self, frame: bytes) -> None:
        """Send a frame now or as soon as the client takes it, behind whatever was sent before; never waits.

        A client that leaves too much untaken is told so and closed. After a close nothing is sent.
        """
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        unsent: int = self.transport.get_write_buffer_size()
        if not unsent:
            self._ends = None
        elif self._too_much(unsent, len(frame)):
            self._give_up()
            return
        self.transport.write(frame)

    def _too_much(self, unsent: int, more: int) -> bool:
        """Whether more bytes would be too much behind those that wait; counts them in if not."""
        ends = self._ends
        if ends is None:
            self._posted, ends = unsent, deque()
            self._ends = ends
        while ends and ends[0] <= self._posted - unsent:
            ends.popleft()
        self._posted += more
        ends.append(self._posted)
        return len(ends) > MOST_MESSAGES or unsent + more > MOST_BYTES

    async def send(self, message: ASGISendEvent) -> None:
        await self.writable.wait()
        if self._gave_up:
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.accept":
            # uvicorn needs them no more, and they are a ninth of an idle connection.
            del self.request, self.response

    def keepalive_timeout(self) -> None:
        if not self.close_sent and self.transport.get_write_buffer_size():
            # The ping waits behind what it has not taken.
            self._give_up()
            return
        super().keepalive_timeout()
        # What is unsent goes out before the transport closes: to a client that reads nothing, never.
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def _give_up(self) -> None:
        self._gave_up = True
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": TOO_SLOW, "reason": TOO_SLOW_REASON})
        self.conn.send_close(TOO_SLOW, TOO_SLOW_REASON)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)
