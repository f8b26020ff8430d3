"""Workers stopped just before a write, until another worker has their setup: what they write then is seen here.

A worker that is stopped anywhere most often notices first that its heartbeat failed. Here the write comes first, as it
does when the heartbeat's connection has broken meanwhile and the other has not.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from server.leases import LeaseLost
from workers.lease import Lease, R

ARMED = "freeze"
# What became of writes under a lease that had moved on.
REFUSED, WRITTEN = "fenced", "unfenced"
# For so long after a stop the heartbeat hears nothing from PostgreSQL.
DEAF_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Frozen:
    """A process that has stopped before a write, and the lease under which it is about to write."""

    pid: int
    setup_id: UUID
    token: int


class Freezer:
    """The harness's side, over files in a directory, as with failpoints."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)

    def arm(self) -> None:
        """The next worker that is about to write stops."""
        (self._directory / ARMED).touch()

    def disarm(self) -> bool:
        """Whether nobody had stopped yet."""
        try:
            (self._directory / ARMED).unlink()
        except FileNotFoundError:
            return False
        return True

    def take_frozen(self) -> Frozen | None:
        """A process that has stopped; told once."""
        for found in self._directory.glob("frozen.*"):
            told = json.loads(found.read_text())
            found.unlink()
            return Frozen(int(found.suffix[1:]), UUID(told["setup"]), told["token"])
        return None

    @property
    def refused(self) -> int:
        return len(self._lines(REFUSED))

    @property
    def written(self) -> list[str]:
        """Writes that the product should have refused."""
        return self._lines(WRITTEN)

    def _lines(self, name: str) -> list[str]:
        path = self._directory / name
        return path.read_text().splitlines() if path.exists() else []


def install(directory: Path) -> None:
    """Wrap the lease in this process and all it forks."""
    write, try_to_renew = Lease.write, Lease._try_to_renew
    deaf_until = 0.0

    @asynccontextmanager
    async def watched(self: Lease[R]) -> AsyncIterator[tuple[AsyncSession, R]]:
        nonlocal deaf_until
        if _stop_if_armed(directory, self):
            deaf_until = time.monotonic() + DEAF_SECONDS
        held = False
        try:
            async with write(self) as (session, row):
                held = True
                if row.lease_token != self.token:
                    _note(directory / WRITTEN, self, f"written under lease {self.token} of {row.lease_token}")
                yield session, row
        except LeaseLost:
            if not held:
                _note(directory / REFUSED, self, f"refused under lease {self.token}")
            raise

    async def deaf(self: Lease[R]) -> None:
        if time.monotonic() < deaf_until:
            await asyncio.sleep(DEAF_SECONDS)
        await try_to_renew(self)

    setattr(Lease, "write", watched)  # noqa: B010 - mypy: a method is not assigned to
    setattr(Lease, "_try_to_renew", deaf)  # noqa: B010


def _stop_if_armed(directory: Path, lease: Lease[R]) -> bool:
    """Whether this process was stopped, and has been told to go on since."""
    pid = os.getpid()
    try:
        (directory / ARMED).rename(directory / f"stopping.{pid}")
    except FileNotFoundError:
        return False
    (directory / f"stopping.{pid}").write_text(json.dumps({"setup": lease.row_id.hex, "token": lease.token}))
    (directory / f"stopping.{pid}").rename(directory / f"frozen.{pid}")
    os.kill(pid, signal.SIGSTOP)
    return True


def _note(path: Path, lease: Lease[R], what: str) -> None:
    with path.open("a") as file:
        file.write(f"{lease}: {what}\n")
