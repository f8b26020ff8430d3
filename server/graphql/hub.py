"""Wakes subscribers: one LISTEN connection per process, shared by every subscription and by the relay.

A notification is a hint and may be lost; the event table is the truth. So a subscriber is registered before its first
read, its flag is cleared before every read, everybody is woken after every (re)connect, and every 3 seconds one query a
tenancy looks for events that their subscribers have not read.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from server.jobs import EVENT_CHANNEL, OUTBOX_CHANNEL
from server.outages import Outage
from server.roles import APP, Connection, connect

POLL_SECONDS = 3.0
ANSWER_SECONDS = 5.0

# What is followed, and the number of its last event.
_LAST = """
SELECT id, last_seq FROM account WHERE tenancy_id = $1 AND id = ANY($2::uuid[])
UNION ALL SELECT policy_id, max(sequence) FROM policy_event
WHERE tenancy_id = $1 AND policy_id = ANY($2::uuid[]) GROUP BY 1
UNION ALL SELECT tenancy_id, last_position FROM event_counter WHERE tenancy_id = $1
"""

logger = logging.getLogger(__name__)


class Subscription:
    """One reader of the events of an account, of a policy, or of all accounts of a tenancy.

    `cursor` is the number of the last event read of what is followed; the reader raises it. `wait`
    returns when there may be more to read, and the first time at once.
    """

    def __init__(self, tenancy_id: UUID, followed: UUID | None, cursor: int) -> None:
        self.tenancy_id = tenancy_id
        self.followed = followed
        self.cursor = cursor
        self._woken = asyncio.Event()
        self._woken.set()

    def wake(self) -> None:
        self._woken.set()

    async def wait(self) -> None:
        await self._woken.wait()
        # Cleared before the caller reads: a hint that comes during the read is kept for the next wait.
        self._woken.clear()


class Hub:
    """The listener of one process. `dsn` leads to PostgreSQL itself: LISTEN does not pass a transaction-mode pooler.

    `outbox` is set whenever there may be rows in the outbox, `connected` while notifications come.
    """

    def __init__(self, dsn: str, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._dsn = dsn
        self._poll_seconds = poll_seconds
        # By the id of what they follow: an account, a policy or a tenancy.
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self.outbox = asyncio.Event()
        self.connected = asyncio.Event()

    async def open(self) -> None:
        """Start to listen; returns at once, whether or not PostgreSQL answers yet."""
        self._task = asyncio.create_task(self._run(), name="hub")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @asynccontextmanager
    async def subscription(
        self, tenancy_id: UUID, followed: UUID | None, cursor: int = 0
    ) -> AsyncIterator[Subscription]:
        """Register a reader of the events after number `cursor` for as long as the block runs.

        They are those of the account or policy that is followed, or where none is given, of the tenancy's accounts.
        """
        subscription = Subscription(tenancy_id, followed, cursor)
        key = str(followed or tenancy_id)
        readers = self._subscriptions.setdefault(key, set())
        readers.add(subscription)
        try:
            yield subscription
        finally:
            readers.discard(subscription)
            if not readers and self._subscriptions.get(key) is readers:
                del self._subscriptions[key]

    @property
    def readers(self) -> int:
        """How many readers are registered."""
        return sum(len(readers) for readers in self._subscriptions.values())

    async def _run(self) -> None:
        outage = Outage(logger, "Live updates stop, or come seconds late")
        while True:
            try:
                await self._listen(outage)
            except Exception as error:
                # Whatever it was, it is logged there, and the loop must outlive it.
                await asyncio.sleep(outage.begin(error))

    async def _listen(self, outage: Outage) -> None:
        """Listen and poll on one connection; always ends with an exception, at the latest when the connection does."""
        lost = asyncio.Event()
        connection = await connect(APP, self._dsn, server_settings={"application_name": "freehold-hub"})
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(EVENT_CHANNEL, self._on_event)
            await connection.add_listener(OUTBOX_CHANNEL, self._on_outbox)
            outage.end()
            self.connected.set()
            self._wake_everybody()
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await lost.wait()
                        break
                await self._poll(connection)
        finally:
            self.connected.clear()
            connection.terminate()
        raise ConnectionResetError("PostgreSQL closed the listening connection")

    async def _poll(self, connection: Connection) -> None:
        """Wake the readers that a lost notification left behind; also shows that the connection is alive."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.execute("SELECT 1")
        for tenancy_id, wanted in self._followed_by_tenancy().items():
            # Row-level security shows one tenancy at a time; each has its own time, however many there are.
            async with asyncio.timeout(ANSWER_SECONDS), connection.transaction(readonly=True):
                await connection.execute("SELECT set_config('app.tenancy_id', $1, true)", str(tenancy_id))
                rows = await connection.fetch(_LAST, tenancy_id, wanted)
            for followed, last in rows:
                for reader in self._subscriptions.get(str(followed), ()):
                    if reader.cursor < last:
                        reader.wake()

    def _followed_by_tenancy(self) -> dict[UUID, list[UUID]]:
        found: dict[UUID, list[UUID]] = {}
        for readers in self._subscriptions.values():
            for tenancy_id, followed in {(reader.tenancy_id, reader.followed) for reader in readers}:
                wanted = found.setdefault(tenancy_id, [])
                if followed is not None:
                    wanted.append(followed)
        return found

    def _on_event(self, _connection: object, _process: int, _channel: str, hint: object) -> None:
        for followed in str(hint).split():
            for reader in self._subscriptions.get(followed, ()):
                reader.wake()

    def _on_outbox(self, _connection: object, _process: int, _channel: str, _payload: object) -> None:
        self.outbox.set()

    def _wake_everybody(self) -> None:
        self.outbox.set()
        for readers in self._subscriptions.values():
            for reader in readers:
                reader.wake()
