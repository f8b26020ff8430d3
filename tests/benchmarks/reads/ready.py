"""uvicorn as the servers run on it that are compared, which says when it listens."""

import os
from socket import socket

import uvicorn
from starlette.types import ASGIApp


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print("ready", flush=True)


def serve(app: ASGIApp) -> None:
    """Serve on the port of the environment's PORT until SIGTERM; prints `ready` on stdout when it listens."""
    config = uvicorn.Config(
        app,
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    _Server(config).run()
