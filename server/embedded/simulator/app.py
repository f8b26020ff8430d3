"""The simulator as a WSGI application: one request at a time, kept on disk before it is answered."""

import io
import json
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from threading import RLock
from typing import TYPE_CHECKING, Any

from flask import Flask
from moto.core.base_backend import BaseBackend
from moto.core.responses import BaseResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import run_wsgi_app

from server.embedded.simulator import HEALTH_PATH, account, iam, organizations, service_quotas, sts
from server.embedded.simulator.answers import Answer, Call, error, read_call
from server.embedded.simulator.organizations import Organizations, remember_members
from server.embedded.simulator.persistence import Key, Snapshots, UnkeepableStateError, UnreadableStateError
from server.embedded.simulator.registry import is_expired, registry_backends

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("simulator")

GLOBAL_SERVICES = ("organizations", "iam", "sts", "account", "s3control")
READS = ("Describe", "Get", "List", "Head", "Lookup", "Search", "BatchGet", "Simulate", "Validate", "Check")
# Reads by name that hand out credentials or advance something.
NOT_READS = frozenset({"DescribeCreateAccountStatus", "GetSessionToken", "GetFederationToken"})


class Simulator:
    """Restores the state when it is made; raises UnreadableStateError when that is impossible."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        # moto is not safe to use from several threads, and a snapshot has to be of one moment.
        self._lock = RLock()
        self._actions: list[str] = []
        _note_actions(self._actions)
        for extension in (organizations, iam, sts, account, service_quotas):
            extension.install()
        snapshots.add_collection(registry_backends)
        snapshots.share_documents(iam.documents)
        snapshots.when_restored(_restored)
        self._moto = DomainDispatcherApplication(self._create_app)
        with self._lock:
            snapshots.restore_service("freehold-registry")
            for service in GLOBAL_SERVICES:
                snapshots.restore_service(service)

    def __call__(self, environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # Read whole before anything else: the connection stays in step, whatever becomes of the request.
        body = _read_body(environment)
        environment["wsgi.input"] = io.BytesIO(body)
        if environment.get("PATH_INFO") == HEALTH_PATH:
            answer = _health()
        else:
            answer = self._answer(environment, read_call(environment, body))
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", answer.headers)
        return [answer.body]

    def warm_up(self) -> None:
        """Load what takes long and is certain to be asked for, before it is."""
        with self._lock:
            signed = "AWS4-HMAC-SHA256 Credential=warm/20000101/us-east-1/ec2/aws4_request"
            self._moto.get_application({"HTTP_AUTHORIZATION": signed, "PATH_INFO": "/"})

    def _answer(self, environment: "WSGIEnvironment", call: Call) -> Answer:
        with self._lock:
            self._snapshots.begin()
            self._actions.clear()
            try:
                answer = _refusal(environment, call) or self._ask_moto(environment, call)
                self._snapshots.save(is_write=_is_write(environment, self._actions))
            except NotImplementedError:
                answer = _not_implemented(call)
            except (UnkeepableStateError, UnreadableStateError) as fault:
                log.exception("%s %s", call.service, call.action)
                answer = error(call, 500, "InternalFailure", str(fault))
            except Exception as fault:
                log.exception("%s %s", call.service, call.action)
                answer = error(call, 500, "InternalFailure", f"The AWS simulator failed: {fault!r}; see its log.")
            return answer

    def _ask_moto(self, environment: "WSGIEnvironment", call: Call) -> Answer:
        chunks, status, headers = run_wsgi_app(self._moto, environment, buffered=True)
        code = int(status.split()[0])
        if code in (404, 405) and headers.get("Content-Type", "").startswith("text/html"):
            # No route: the service is there, the call is not.
            return _not_implemented(call)
        return Answer(code, list(headers), b"".join(chunks))

    def _create_app(self, service: Any) -> Flask:
        """moto asks for this at the first request to a service."""
        if service is None:
            raise NotImplementedError
        if service == "ec2":
            # A second of importing, for this service alone.
            from server.embedded.simulator import ec2  # noqa: PLC0415

            ec2.install()
        if service not in GLOBAL_SERVICES:
            self._snapshots.restore_service(service)
        try:
            return create_backend_app(service)
        except ImportError as missing:
            # Some of moto's services need packages that Freehold does not.
            raise NotImplementedError from missing


def _restored(key: Key, backend: BaseBackend) -> None:
    if isinstance(backend, Organizations):
        remember_members(backend)
    if isinstance(backend, iam.Iam):
        backend.add_new_policies()


def _note_actions(actions: list[str]) -> None:
    """Have moto tell which API action a request turned out to be; the action is in a different place per protocol."""
    plain: Callable[[BaseResponse], Any] = BaseResponse.call_action

    def call_action(response: BaseResponse) -> Any:
        actions.append(response._get_action() or "")
        return plain(response)

    BaseResponse.call_action = call_action  # type: ignore[method-assign, assignment]


def _is_write(environment: "WSGIEnvironment", actions: list[str]) -> bool:
    if not actions:
        return environment["REQUEST_METHOD"] not in ("GET", "HEAD")
    return any(action in NOT_READS or not action.startswith(READS) for action in actions)


def _refusal(environment: "WSGIEnvironment", call: Call) -> Answer | None:
    """The answer to a request that moto must not see."""
    if is_expired(call.access_key):
        code = "ExpiredTokenException" if call.is_json else "ExpiredToken"
        return error(call, 403, code, "The security token included in the request is expired.")
    if environment.get("PATH_INFO", "").startswith("/moto-api"):
        # It could empty the memory behind the state file's back.
        return _not_implemented(call)
    return None


def _not_implemented(call: Call) -> Answer:
    log.warning("%s %s is not implemented", call.service or "an unknown service:", call.action)
    return error(
        call, 501, "NotImplemented", f"The AWS simulator does not implement {call.service} {call.action}.".strip()
    )


def _health() -> Answer:
    body = json.dumps({"status": "ok"}).encode()
    return Answer(200, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))], body)


def _read_body(environment: "WSGIEnvironment") -> bytes:
    stream = environment["wsgi.input"]
    if environment.get("wsgi.input_terminated"):
        body: bytes = stream.read()
        # moto sees the plain body and has no use for how it travelled.
        environment["CONTENT_LENGTH"] = str(len(body))
        environment.pop("HTTP_TRANSFER_ENCODING", None)
        return body
    return bytes(stream.read(int(environment.get("CONTENT_LENGTH") or 0)))
