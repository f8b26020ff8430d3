"""How long a setup stands still when the process that works on it dies: from its death to the next claim."""

import asyncio
import time
from dataclasses import dataclass, field
from uuid import UUID

from tests.chaos.database import Database

LOOK_SECONDS = 0.1
HELD = "SELECT id, lease_token FROM setup WHERE lease_owner = $1 AND status IN ('PENDING', 'RUNNING', 'WAITING')"
NOW = "SELECT id, lease_token, lease_owner IS NOT NULL AND status = 'RUNNING' AS held FROM setup WHERE id = ANY($1)"


@dataclass(slots=True)
class Standstill:
    token: int
    since: float


@dataclass
class Recoveries:
    """Told of deaths with `died`; `watch` runs beside the harness and fills `seconds`."""

    database: Database
    seconds: list[float] = field(default_factory=list)
    _deaths: asyncio.Queue[tuple[str, float]] = field(default_factory=asyncio.Queue)
    _open: dict[UUID, Standstill] = field(default_factory=dict)

    def died(self, owner: str) -> None:
        self._deaths.put_nowait((owner, time.monotonic()))

    @property
    def open(self) -> int:
        return len(self._open)

    async def watch(self) -> None:
        while True:
            await self._look()
            # PostgreSQL tells nobody about a claim.
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        while not self._deaths.empty():
            owner, at = self._deaths.get_nowait()
            for row in await self.database.patiently(HELD, owner):
                self._open[row["id"]] = Standstill(row["lease_token"], at)
        if not self._open:
            return
        for row in await self.database.patiently(NOW, list(self._open)):
            stand = self._open[row["id"]]
            if row["lease_token"] > stand.token:
                self.seconds.append(time.monotonic() - stand.since)
            elif row["held"]:
                continue
            # Otherwise its last commit was still on its way: nothing had to be recovered.
            del self._open[row["id"]]
