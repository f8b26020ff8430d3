"""Errors in the form that the asked service's protocol prescribes, so that any AWS client shows them."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from moto.moto_api._internal import mock_random

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

JSON_SERVICES_BY_PATH = frozenset({"account", "access-analyzer", "guardduty", "securityhub", "macie2", "backup"})


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for, as far as its head and body tell without moto."""

    service: str
    action: str
    access_key: str
    form: str

    @property
    def is_json(self) -> bool:
        return self.form.startswith("application/") and "json" in self.form


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def read_call(environment: "WSGIEnvironment", body: bytes) -> Call:
    scope = _credential_scope(environment.get("HTTP_AUTHORIZATION", ""))
    form = environment.get("CONTENT_TYPE", "")
    action = environment.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    if not action and form.startswith("application/x-www-form-urlencoded"):
        action = next((part[7:] for part in body.decode("latin-1").split("&") if part.startswith("Action=")), "")
    if not action:
        action = f"{environment['REQUEST_METHOD']} {environment.get('PATH_INFO', '/')}"
    return Call(service=scope[1], action=action, access_key=scope[0], form=form)


def _credential_scope(authorization: str) -> tuple[str, str]:
    """Access key and service of `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, ...`."""
    _, found, rest = authorization.partition("Credential=")
    parts = rest.split(",")[0].split("/")
    return (parts[0], parts[3]) if found and len(parts) == 5 else ("", "")


def error(call: Call, status: int, code: str, message: str) -> Answer:
    request_id = str(mock_random.uuid4())
    if call.is_json or (call.service in JSON_SERVICES_BY_PATH):
        body = json.dumps({"__type": code, "message": message})
        headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", code)]
    else:
        fault = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        body = f"<Response><Errors>{fault}</Errors><RequestID>{request_id}</RequestID></Response>"
        if call.service != "ec2":
            body = f"<ErrorResponse>{fault}<RequestId>{request_id}</RequestId></ErrorResponse>"
        headers = [("Content-Type", "text/xml")]
    headers += [("x-amzn-RequestId", request_id), ("Content-Length", str(len(body.encode())))]
    return Answer(status, headers, body.encode())
