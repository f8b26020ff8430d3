"""graphql-transport-ws: Strawberry's handler, made strict about messages and about who stays connected."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation

from server.context import Context
from server.graphql.feeds import Feed
from server.graphql.groups import Member
from server.graphql.request import BadRequest, bearer_token, operation_from
from server.graphql.schema import Begun, Schema
from server.outages import is_away
from server.sockets import POST, Post

if TYPE_CHECKING:
    from server.graphql.endpoint import Endpoint

BAD_REQUEST, FORBIDDEN, TRY_AGAIN = 4400, 4403, 1013
_LONGEST_REASON = 123  # bytes, RFC 6455 5.5

logger = logging.getLogger(__name__)


class TokenRefused(Exception):
    """A socket has no token, or one that is not valid; the message is the reason with which it is closed."""


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

    @property
    def post(self) -> Post | None:
        """What sends to this socket without waiting, where the server has that."""
        found: Post | None = self.ws.scope.get("extensions", {}).get(POST)
        return found

    async def send_text(self, text: bytes) -> None:
        """Send text when the client takes it."""
        try:
            await self.ws.send_text(text.decode())
        except WebSocketDisconnect as error:
            raise WebSocketDisconnected from error

    async def close(self, code: int, reason: str) -> None:
        if self.ws.application_state == WebSocketState.CONNECTED:
            short = reason.encode("utf-8", "replace")[:_LONGEST_REASON].decode("utf-8", "ignore")
            await super().close(code, short)


class Handler(BaseGraphQLTransportWSHandler[Any, None]):
    """One connection. Its context is a `Connection` until the client has shown its token, and then a `Context`."""

    view: "Endpoint"
    schema: Schema
    websocket: Adapter
    _watch: asyncio.Task[None] | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The operations that belong to a group, by their ids.
        self._members: dict[str, Member] = {}

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
        except TokenRefused as refused:
            await self.websocket.close(FORBIDDEN, str(refused))
            return
        except Exception as error:
            if not is_away(error):
                raise
            # graphql-ws clients connect again after this code; after 4403 they would not.
            await self.websocket.close(TRY_AGAIN, "The database does not answer at the moment; try again shortly.")
            return
        if self.connection_acknowledged and isinstance(connection, Connection):
            self.context = connection.context
            self.connection_init_timeout_task = None
            self._watch = asyncio.create_task(self._close_when_revoked(connection))

    async def shutdown(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        await super().shutdown()

    async def run_operation(self, operation: Operation[Any, None]) -> None:
        # Thousands may follow with the same text.
        operation.query = sys.intern(operation.query)
        begun = await self._begin(operation)
        if begun is None:
            await super().run_operation(operation)
            return
        async with self._failing(operation):
            feed = begun.source if isinstance(begun, Begun) else None
            if not isinstance(feed, Feed) or not await self._follow(operation, feed):
                await self._answer(operation, begun)

    async def _begin(self, operation: Operation[Any, None]) -> Begun | list[GraphQLError] | None:
        return await self.schema.begin(
            operation.query, operation.variables, self.context, operation_name=operation.operation_name
        )

    async def _answer(self, operation: Operation[Any, None], begun: Begun | list[GraphQLError]) -> None:
        """Send what an operation yields by itself, to its end."""
        if isinstance(begun, list):
            await operation.send_initial_errors(begun)
            return
        async with aclosing(begun.results()) as results:
            async for result in results:
                await operation.send_next(result)
        await operation.send_operation_message({"id": operation.id, "type": "complete"})

    async def _follow(self, operation: Operation[Any, None], feed: Feed[Any]) -> bool:
        """Join those who follow the same feed; False when this one has to be followed alone, from where it stands."""
        plan, post = feed.plan(), self.websocket.post
        if plan is None or post is None:
            return False
        member = Member(operation.id, feed.cursor, post, lambda: self._go_on_alone(operation, member))
        self._members[operation.id] = member
        try:
            await self.view.groups.join(feed, plan, member).catch_up(member, self.websocket.send_text)
        except WebSocketDisconnected:
            # What is done with the operation then does not come to its member.
            member.leave()
            raise
        except Exception:
            # The ordinary executor says what is wrong with an event, and where.
            member.leave()
            feed.cursor = member.cursor
            return False
        return True

    def _go_on_alone(self, operation: Operation[Any, None], member: Member) -> None:
        before = operation.task

        async def go_on() -> None:
            if before is not None:
                # It may be sending an event just now.
                await before
            async with self._failing(operation):
                begun = await self._begin(operation)
                if isinstance(begun, Begun) and isinstance(begun.source, Feed):
                    begun.source.cursor = member.cursor
                if begun is not None:
                    await self._answer(operation, begun)

        operation.task = asyncio.create_task(go_on())
        operation.task.add_done_callback(self._task_done)

    @asynccontextmanager
    async def _failing(self, operation: Operation[Any, None]) -> AsyncIterator[None]:
        """Complete an operation that fails with what nobody expected."""
        try:
            yield
        except Exception as error:
            await self.handle_task_exception(error)
            with suppress(Exception):
                await operation.send_operation_message({"id": operation.id, "type": "complete"})
            self.operations.pop(operation.id, None)

    async def cleanup_operation(self, operation_id: str) -> None:
        if (member := self._members.pop(operation_id, None)) is not None:
            member.leave()
        operation = self.operations.pop(operation_id, None)
        if operation is not None and operation.task is not None:
            operation.task.cancel()

    async def handle_task_exception(self, error: Exception) -> None:
        if not isinstance(error, WebSocketDisconnected):
            logger.error("An operation on a WebSocket failed", exc_info=error)

    async def _close_when_revoked(self, connection: Connection) -> None:
        """Look from time to time whether the token is still good; a database that does not answer revokes nothing."""
        while True:
            await asyncio.sleep(self.view.seconds_between_token_checks)
            try:
                await self.view.on_ws_connect(connection)
            except TokenRefused:
                await self.websocket.close(
                    FORBIDDEN, "The API token is no longer valid: it was revoked or has expired."
                )
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
