"""uvicorn, set up as Freehold needs it."""

import logging
from socket import socket

import uvicorn
from starlette.types import ASGIApp

from server.sockets import Socket

SHUTDOWN_SECONDS = 4
LARGEST_MESSAGE = 1024 * 1024

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """`run()` it, or `await serve()` in a loop of your own; `should_exit = True` or a signal stops it."""

    @property
    def port(self) -> int:
        """The port it listens on, also when port 0 left the choice to the system."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            logger.info("Freehold answers on http://%s:%d", self.config.host, self.port)


def create_server(app: ASGIApp, host: str, port: int) -> Server:
    """A server for the application. It stops within 5 seconds, whatever is open, and uses the process's own logging."""
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="uvloop",
            http="httptools",
            ws=Socket,
            ws_max_size=LARGEST_MESSAGE,
            # Each client would have a compressor of its own, and a frame could not be sent to many.
            ws_per_message_deflate=False,
            lifespan="on",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )
