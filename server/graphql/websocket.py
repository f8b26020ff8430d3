"""graphql-transport-ws: Strawberry's handler, made strict about messages and about who stays connected."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler

from server.context import Context
from server.graphql.request import BadRequest, bearer_token, operation_from
from server.outages import is_away

BAD_REQUEST, FORBIDDEN, TRY_AGAIN = 4400, 4403, 1013
_LONGEST_REASON = 123  # bytes, RFC 6455 5.5

logger = logging.getLogger(__name__)


class Connection:
    """What is known of a socket: the token it came with and, once that was accepted, the context of its viewer."""

    def __init__(self) -> None:
        self.connection_params: dict[str, Any] = {}
        self.context: Context | None = None

    @property
    def token(self) -> str | None:
        given = (value for name, value in self.connection_params.items() if name.lower() == "authorization")
        return bearer_token(next(given, None))


class Adapter(ASGIWebSocketAdapter):
    """The socket. Who writes after it has closed is told so, and a close reason is as short as the protocol demands."""

    async def send_json(self, message: Mapping[str, object]) -> None:
        if self.ws.application_state != WebSocketState.CONNECTED:
            raise WebSocketDisconnected
        await super().send_json(message)

    async def close(self, code: int, reason: str) -> None:
        if self.ws.application_state == WebSocketState.CONNECTED:
            short = reason.encode("utf-8", "replace")[:_LONGEST_REASON].decode("utf-8", "ignore")
            await super().close(code, short)


class Handler(BaseGraphQLTransportWSHandler[Any, None]):
    """One connection. Its context is a `Connection` until the client has shown its token, and then a `Context`."""

    _watch: asyncio.Task[None] | None = None

    async def handle_message(self, message: Any) -> None:
        fault = _fault(message)
        if fault is not None:
            await self.websocket.close(BAD_REQUEST, fault)
            return
        if message["type"] == "connection_init" and message.get("payload") is None:
            message = {"type": "connection_init"}
        await super().handle_message(message)

    async def handle_connection_init(self, message: Any) -> None:
        connection = self.context
        try:
            await super().handle_connection_init(message)
        except Exception as error:
            if not is_away(error):
                raise
            # graphql-ws clients connect again after this code; after 4403 they would not.
            await self.websocket.close(TRY_AGAIN, "The database does not answer at the moment; try again shortly.")
            return
        if self.connection_acknowledged and isinstance(connection, Connection):
            self.context = connection.context
            self._watch = asyncio.create_task(self._close_when_revoked(connection))

    async def shutdown(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        await super().shutdown()

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):
            logger.error("An operation on a WebSocket failed", exc_info=error)

    async def _close_when_revoked(self, connection: Connection) -> None:
        """Look from time to time whether the token is still good; a database that does not answer revokes nothing."""
        while True:
            await asyncio.sleep(self.view.seconds_between_token_checks)  # type: ignore[attr-defined] # an Endpoint
            try:
                await self.view.on_ws_connect(connection)
            except ConnectionRejectionError:
                await self.websocket.close(FORBIDDEN, "Forbidden")
                return
            except Exception as error:
                if not is_away(error):
                    await self.handle_task_exception(error)


def _fault(message: Any) -> str | None:
    """What is wrong with the shape of a message; None when nothing is."""
    if not (isinstance(message, dict) and isinstance(message.get("type"), str)):
        return "A message must be a JSON object with a type"
    kind, payload = message["type"], message.get("payload")
    if kind in ("subscribe", "complete") and not (isinstance(message.get("id"), str) and message["id"]):
        return f"The id of a {kind} message must be a string"
    if not isinstance(payload, dict if kind == "subscribe" else dict | None):
        return f"The payload of a {kind} message must be an object"
    return _operation_fault(payload) if kind == "subscribe" and payload is not None else None


def _operation_fault(payload: dict[str, Any]) -> str | None:
    try:
        operation_from(payload)
    except BadRequest as refused:
        return refused.message
    return None
