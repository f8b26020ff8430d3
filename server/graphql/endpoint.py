"""The GraphQL endpoint: HTTP, WebSocket and the page for people, over any schema.

Who asks is decided by `authenticate`, what resolvers get by `context_for`; what has a plan is read over `reader`.
Nothing here knows a domain.
"""

import base64
import hashlib
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias

from cachetools import LRUCache
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http.ides import get_graphql_ide_html
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types.graphql import OperationType
from strawberry.types.unset import UNSET, UnsetType

from server.context import Context, Viewer
from server.graphql.errors import ErrorCode, describe_fault
from server.graphql.groups import Groups
from server.graphql.ids import encode
from server.graphql.request import (
    BadRequest,
    Headers,
    Operation,
    bearer_token,
    decode_json,
    decode_operation,
    read_body,
)
from server.graphql.reread import Rereader
from server.graphql.response import executed_response, read_response, refusal
from server.graphql.schema import Schema
from server.graphql.websocket import Adapter, Connection, Handler, TokenRefused
from server.identity.models import Role
from server.outages import cause_of
from server.planner.reader import Reader
from server.planner.statement import Planned

Authenticate: TypeAlias = Callable[[str], Awaitable[Viewer | None]]

INIT_TIMEOUT = timedelta(seconds=10)
SUBSCRIPTIONS_PER_CONNECTION = 100
# With the time for which a token is remembered, and some for PostgreSQL, the 30 seconds that the README promises.
SECONDS_BETWEEN_TOKEN_CHECKS = 15.0
# Bytes, about, of the requests that are kept as they came with their plans, and of the largest of them.
LARGEST_CACHE, LARGEST_KEPT = 24 * 1024 * 1024, 4096
# What one value of a kept request takes.
_VALUE = 150
logger = logging.getLogger(__name__)

_STATUS = {ErrorCode.UNAVAILABLE: 503, ErrorCode.VALIDATION: 400}


class Endpoint(GraphQL[Any, None]):
    """An ASGI application for the path `/graphql`."""

    graphql_transport_ws_handler_class = Handler
    websocket_adapter_class = Adapter
    schema: Schema

    def __init__(
        self,
        schema: Schema,
        authenticate: Authenticate,
        context_for: Callable[[Viewer], Context],
        reader: Reader,
        *,
        allowed_origins: Sequence[str] = (),
        init_timeout: timedelta = INIT_TIMEOUT,
        seconds_between_token_checks: float = SECONDS_BETWEEN_TOKEN_CHECKS,
    ) -> None:
        super().__init__(
            schema,
            allow_queries_via_get=False,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=init_timeout,
            max_subscriptions_per_connection=SUBSCRIPTIONS_PER_CONNECTION,
            allowed_origins=allowed_origins,
        )
        self.groups = Groups()
        self.seconds_between_token_checks = seconds_between_token_checks
        self._authenticate = authenticate
        self._context_for = context_for
        self._reader = reader
        self._plans: LRUCache[tuple[bytes, Role], Planned] = LRUCache(LARGEST_CACHE, getsizeof=_size)
        self._page = get_graphql_ide_html("graphiql")
        self._page_headers = _page_headers(self._page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            response = await self._respond(scope, receive)
            await response(scope, receive, send)
        else:
            await self.run(WebSocket(scope, receive, send))

    async def _respond(self, scope: Scope, receive: Receive) -> ASGIApp:
        headers: Headers = dict(scope["headers"])
        try:
            if scope["method"] == "POST":
                return await self._post(headers, receive)
            if scope["method"] == "GET" and _wants_page(Request(scope)):
                return HTMLResponse(self._page, headers=self._page_headers)
            raise BadRequest("Send GraphQL operations by POST.", 405, headers={"allow": "GET, POST"})
        except BadRequest as refused:
            return refusal(refused, headers.get(b"accept"))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            code, message = describe_fault(error)
            return refusal(BadRequest(message, _STATUS.get(code, 500), code), headers.get(b"accept"))

    async def _post(self, headers: Headers, receive: Receive) -> ASGIApp:
        viewer = await self._viewer(headers)
        body = await read_body(headers, receive)
        accept = headers.get(b"accept")
        operation = fault = None
        try:
            planned: Planned | None = self._plans[body, viewer.role]
        except KeyError:
            operation = decode_operation(body)
            planned = self._plan(body, operation, viewer.role)
        if planned is not None:
            try:
                answer = await self._reader.fetch(viewer.tenancy_id, planned.statement.sql, planned.values(viewer))
                if answer is not None:
                    return read_response(answer, accept)
            except Exception as error:
                fault = error
        context = self._context_for(viewer)
        if fault is not None:
            context = self._to_read_again(context, fault)
        return await self._execute(operation or decode_operation(body), context, accept)

    def _plan(self, body: bytes, operation: Operation, role: Role) -> Planned | None:
        planned = self.schema.documents.plan(operation, role)
        # Frontends ask the same again and again: a request like one before, byte for byte, need not even be decoded.
        if planned is not None and len(body) <= LARGEST_KEPT:
            self._plans[body, role] = planned
        return planned

    def _to_read_again(self, context: Context, fault: Exception) -> Context:
        """The context in which each field gets what it can still have, or its own error."""
        reader = Rereader(self._reader, fault)
        if not reader.gives_up:
            viewer = context.viewer
            logger.warning(
                "A query with the API token %r of tenancy %s is read again, field by field: %s",
                viewer.token_name,
                encode("ten", viewer.tenancy_id),
                cause_of(fault),
            )
        return replace(context, reader=reader)

    async def _viewer(self, headers: Headers) -> Viewer:
        token = bearer_token(headers.get(b"authorization", b"").decode("latin-1"))
        viewer = None if token is None else await self._authenticate(token)
        if viewer is None:
            raise BadRequest(
                "Send a valid API token in the header `Authorization: Bearer <token>`.",
                401,
                ErrorCode.UNAUTHENTICATED,
                {"www-authenticate": "Bearer"},
            )
        return viewer

    async def _execute(self, operation: Operation, context: Context, accept: bytes | None) -> ASGIApp:
        try:
            result = await self.schema.execute(
                operation.query,
                variable_values=operation.variables,
                context_value=context,
                operation_name=operation.operation_name,
                allowed_operation_types=(OperationType.QUERY, OperationType.MUTATION),
            )
        except CannotGetOperationTypeError as error:
            raise BadRequest(f"{error.as_http_error_reason().rstrip('.')}.") from None
        except InvalidOperationTypeError:
            raise BadRequest(
                "Subscriptions need a WebSocket with the subprotocol graphql-transport-ws, at this same address."
            ) from None
        return executed_response(result, accept)

    def decode_json(self, data: str | bytes) -> object:
        """For the WebSocket adapter, which knows no other exception."""
        try:
            return decode_json(data)
        except ValueError as error:
            raise json.JSONDecodeError("invalid JSON", "", 0) from error

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Connection:
        return Connection()

    async def on_ws_connect(self, context: Connection) -> UnsetType:
        """Accept the token of a socket, or raise TokenRefused; asked again while the socket is open."""
        if context.token is None:
            raise TokenRefused('Send {"Authorization": "Bearer <token>"} as the payload of connection_init.')
        viewer = await self._authenticate(context.token)
        if viewer is None:
            raise TokenRefused("The API token is not valid: it is mistyped, revoked or expired.")
        context.context = self._context_for(viewer)
        acknowledge: UnsetType = UNSET
        return acknowledge


def _size(planned: Planned) -> int:
    """What a kept request takes at most; its statement may be its own."""
    values = sum(len(each) if isinstance(each, list) else 1 for answer in planned.answers for each in answer)
    return LARGEST_KEPT + len(planned.statement.sql) + _VALUE * values


def _wants_page(request: Request) -> bool:
    accept = request.headers.get("accept")
    return "query" not in request.query_params and any(kind in (accept or "*/*") for kind in ("text/html", "*/*"))


def _page_headers(page: str) -> dict[str, str]:
    """Only the page's own inline scripts and the CDN it names may run; it may talk to this server alone."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = {
        "default-src": "'none'",
        "script-src": f"{hashes} https://unpkg.com",
        "style-src": "'unsafe-inline' https://unpkg.com",
        "font-src": "data: https://unpkg.com",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "worker-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
