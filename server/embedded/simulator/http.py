"""The HTTP server in front of the simulator: werkzeug's, with connections that are kept open."""

import logging
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger("simulator")


class Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are written apart; with Nagle's algorithm the body would wait 40 ms for an acknowledgement.
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        log.debug("%s %s %s", self.command, self.path, code)

    def log_error(self, format: str, *args: object) -> None:
        log.warning(format, *args)


def make_server(host: str, port: int, application: "WSGIApplication") -> BaseWSGIServer:
    return ThreadedWSGIServer(host, port, application, handler=Handler)
