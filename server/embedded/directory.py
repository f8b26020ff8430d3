"""The data directory: who holds it, and the passwords kept in it.

lock             held by the process that runs the services; holds its id
services.lock    held by the guards of the services, so as long as one of them still runs
passwords.json   of the database roles and of Valkey
logs/ postgres/ valkey/ aws/
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from server.embedded.errors import DirectoryInUseError, EmbeddedError

log = logging.getLogger(__name__)

# Longer than the longest grace a guard gives its child.
PREDECESSOR_SECONDS = 40.0

# Every data directory of Freehold holds this file, and nothing else does.
LOCK = "lock"


def prepare(directory: Path) -> Path:
    """Create the data directory, closed to others, or take one that exists as it is; its absolute path."""
    directory = directory.absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise EmbeddedError(f"{directory} is not a directory; choose another with --data-dir.") from None
    except OSError as error:
        raise EmbeddedError(f"Cannot create the data directory {directory}: {error.strerror}.") from error
    if not (directory / LOCK).exists() and any(directory.iterdir()):
        raise EmbeddedError(
            f"{directory} is not empty and holds no data of Freehold; choose an empty or new directory with --data-dir."
        )
    return directory


@asynccontextmanager
async def held(directory: Path) -> AsyncIterator[int]:
    """Hold the data directory; yields the open file that every guard has to inherit.

    Raises DirectoryInUseError when another process holds it. When that one is gone and its services are still being
    stopped by their guards, waits for those.
    """
    with contextlib.ExitStack() as files:
        lock = _open(directory / LOCK)
        files.callback(os.close, lock)
        if not _try_lock(lock):
            raise DirectoryInUseError(directory, os.pread(lock, 32, 0).decode().strip() or "unknown")
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

        services = _open(directory / "services.lock")
        files.callback(os.close, services)
        await _wait_for_predecessor(services, directory)
        yield services


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"Cannot write to the data directory: {path}: {error.strerror}.") from error


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _wait_for_predecessor(services: int, directory: Path) -> None:
    deadline = time.monotonic() + PREDECESSOR_SECONDS
    told = False
    while not _try_lock(services):
        if not told:
            log.info("waiting for the services of an earlier run on %s to stop", directory)
            told = True
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"Services of an earlier run on {directory} do not stop. "
                f"Find them with `fuser {directory / 'services.lock'}`, end them and start again."
            )
        # A lock that another process drops announces itself to nobody.
        await asyncio.sleep(0.05)


def passwords(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """One random password for each of `names`, made at the first call and kept in a file that only the owner reads."""
    path = directory / "passwords.json"
    try:
        kept: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise EmbeddedError(
            f"Cannot read {path}: {error}. Without it the databases in {directory} cannot be opened: "
            "restore the file, or start with another --data-dir."
        ) from error
    missing = [name for name in names if name not in kept]
    if missing:
        kept |= {name: secrets.token_urlsafe(24) for name in missing}
        write_private(path, json.dumps(kept, indent=2) + "\n")
    return kept


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner alone."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(file)
    new.replace(path)
