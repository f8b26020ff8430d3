"""GraphQL over HTTP, the request: from bytes that may be anything to an operation, or to a refusal with a reason."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from server.graphql.errors import ErrorCode

# By their names in lower case, as ASGI gives them.
Headers: TypeAlias = Mapping[bytes, bytes]

LARGEST_BODY = 1024 * 1024
# No input takes as many values. Checking each of 200,000 against the schema would stop the server for half a second.
LARGEST_LIST = 1000
# What is shown of a key that the client made up.
LONGEST_NAME = 60
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class DuplicateKey(ValueError):
    """An object has a key twice: a decoder would keep the last and forget the others."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise DuplicateKey(f"An object in the body has the key {key[:LONGEST_NAME]!r} twice; give it once.")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)


class BadRequest(Exception):
    """The request cannot be executed; `status` and the message go to the client."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        code: ErrorCode = ErrorCode.VALIDATION,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.headers = headers or {}


@dataclass(slots=True)
class Operation:
    """What a request asks for."""

    query: str
    operation_name: str | None
    variables: dict[str, Any] | None


def decode_json(data: bytes | str) -> Any:
    """Decode JSON strictly; raises ValueError for what is no JSON, or holds text that is no Unicode or a key twice."""
    encoded = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        value = _DECODER.decode(encoded.decode())
        if _SURROGATE.search(encoded):
            # Pairs are one character by now; a half of one cannot be sent to PostgreSQL or back to the client.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def bearer_token(authorization: object) -> str | None:
    """The token in the value of an `Authorization` header."""
    if not isinstance(authorization, str):
        return None
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def decode_operation(body: bytes) -> Operation:
    """The operation in the body of a POST; raises BadRequest."""
    try:
        message = decode_json(body)
    except DuplicateKey as error:
        raise BadRequest(str(error)) from None
    except ValueError:
        raise BadRequest("The body is not valid JSON.") from None
    if isinstance(message, list):
        raise BadRequest("Send one operation a request; batches are not supported.")
    if not isinstance(message, dict):
        raise BadRequest("The body must be a JSON object.")
    return operation_from(message)


def operation_from(message: dict[str, Any]) -> Operation:
    """The operation in a decoded request, by HTTP or by WebSocket; raises BadRequest."""
    query = message.get("query")
    if not isinstance(query, str) or not query.strip():
        raise BadRequest("`query` must be a string with a GraphQL document.")
    operation_name = message.get("operationName")
    if not isinstance(operation_name, str | None):
        raise BadRequest("`operationName` must be a string or null.")
    for name in ("variables", "extensions"):
        if not isinstance(message.get(name), dict | None):
            raise BadRequest(f"`{name}` must be an object or null.")
    _check_lists(message.get("variables"))
    return Operation(query, operation_name, message.get("variables"))


def _check_lists(variables: object) -> None:
    if found := _long_list(variables):
        path, length = found
        name = ".".join(("variables", *path))
        raise BadRequest(f"`{name}` has {length} values; a list may have {LARGEST_LIST} at most.")


def _long_list(value: object) -> tuple[tuple[str, ...], int] | None:
    """Where a list is too long, and its length. The path is made on the way back only: keys may be long."""
    if isinstance(value, list) and len(value) > LARGEST_LIST:
        return (), len(value)
    if not isinstance(value, dict | list):
        return None
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(each, dict | list) and (found := _long_list(each)):
            return (str(key)[:LONGEST_NAME], *found[0]), found[1]
    return None


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """The body of a POST; raises BadRequest, or ClientDisconnect when the rest of it does not come."""
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise BadRequest("Send the operation as JSON, with the content type application/json.", 415)
    too_large = BadRequest(f"The body is larger than {LARGEST_BODY} bytes.", 413)
    if _announced_length(headers) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        # A body in chunks announces no length.
        if len(body) + len(chunk) > LARGEST_BODY:
            raise too_large
        if not body and not more:
            # The whole at once, as nearly always.
            return chunk
        body += chunk
        if not more:
            return bytes(body)


def _announced_length(headers: Headers) -> int:
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() and len(length) < 20 else 0
