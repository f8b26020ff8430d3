"""GraphQL over HTTP, the response: its media type, its status, and errors as JSON."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import GraphQLError
from starlette.types import Receive, Scope, Send
from strawberry.types import ExecutionResult

from server.graphql.request import BadRequest

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
_HEADERS = {"vary": "Accept", "x-content-type-options": "nosniff", "cache-control": "no-store"}


@dataclass(slots=True)
class JsonResponse:
    """An ASGI application that answers one request; Starlette's takes as long to make as a short read."""

    body: bytes
    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % len(self.body))
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": self.body})


def media_type(accept: str | None) -> str:
    """The media type of the response to a request with this `Accept`; JSON where the client has no preference.

    A client that accepts neither still gets JSON: an answer it may not read says more than a bare 406.
    """
    weights = _weights(accept or "*/*")
    named = list(weights)

    def preference(name: str) -> tuple[float, int]:
        weight = next((weights[each] for each in (name, "application/*", "*/*") if each in weights), 0.0)
        return -weight, named.index(name) if name in named and weight else len(named)

    return min((JSON, GRAPHQL), key=preference)


def read_response(body: bytes, accept: bytes | None) -> JsonResponse:
    """The response to a query that PostgreSQL has answered whole."""
    return JsonResponse(body, 200, _headers(_media_type(accept)))


def executed_response(result: ExecutionResult, accept: bytes | None) -> JsonResponse:
    """The response to an operation; one that could not be executed has no `data`."""
    kind = _media_type(accept)
    # An error outside every field, and no data: parsing, validation or the variables stopped it.
    not_executed = result.data is None and all(error.path is None for error in result.errors or ())
    body: dict[str, Any] = {} if not_executed else {"data": result.data}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    if result.extensions:
        body["extensions"] = result.extensions
    return _response(_encode(body), 400 if not_executed and kind == GRAPHQL else 200, kind)


def refusal(refused: BadRequest, accept: bytes | None) -> JsonResponse:
    """The response to a request that never came to be executed; its status says why in either media type."""
    error = GraphQLError(refused.message, extensions={"code": refused.code.value})
    return _response(_encode({"errors": [error.formatted]}), refused.status, _media_type(accept), refused.headers)


@lru_cache(maxsize=128)
def _media_type(accept: bytes | None) -> str:
    return media_type(None if accept is None else accept.decode("latin-1"))


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _response(body: bytes, status: int, kind: str, headers: dict[str, str] | None = None) -> JsonResponse:
    more = tuple((name.encode(), value.encode()) for name, value in (headers or {}).items())
    return JsonResponse(body, status, (*_headers(kind), *more))


@lru_cache(maxsize=2)
def _headers(kind: str) -> tuple[tuple[bytes, bytes], ...]:
    headers = {**_HEADERS, "content-type": f"{kind}; charset=utf-8"}
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            weights[name] = float(quality)
        except ValueError:
            weights[name] = 0.0
    return weights
