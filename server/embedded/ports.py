"""Loopback ports: one that is free, and a clear refusal of one that is not."""

import asyncio
import errno
import socket

from server.embedded.errors import EmbeddedError, PortInUseError

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port on the loopback address that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free_port(host: str, port: int, option: str = "--port", of_host: str = "--host") -> None:
    """Raise PortInUseError when somebody listens on `port` of `host`, or EmbeddedError when nobody here can.

    The messages name what the port, or the host, was given by.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise EmbeddedError(f"cannot listen on {host}: {error.strerror or error}; see {of_host}") from error
    with socket.socket(family, kind, protocol) as probe:
        # As servers do; without it a port that a server left a moment ago would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUseError(host, port, option) from None
            cause = of_host if error.errno == errno.EADDRNOTAVAIL else option
            raise EmbeddedError(f"cannot listen on port {port} of {host}: {error.strerror}; see {cause}") from error


async def http_answers(host: str, port: int, path: str) -> bool:
    """Whether a GET of `path` is answered with 200: a readiness probe for the supervisor."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
