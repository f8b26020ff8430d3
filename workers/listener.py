"""Hears of new outbox rows from PostgreSQL, so that the relay need not wait for its tick."""

import asyncio
import logging
import os

from server.config import START
from server.jobs import OUTBOX_CHANNEL
from server.outages import Outage
from server.roles import WORKER, connect, listener_name

CHECK_SECONDS = 5.0

logger = logging.getLogger(__name__)


async def listen(database_url: str, wake: asyncio.Event) -> None:
    """Set `wake` at every notification, until cancelled. What is missed while disconnected the relay's tick finds."""
    outage = Outage(logger, "This worker hears of new work late")
    while True:
        try:
            await _listen_while_connected(database_url, wake, outage)
        except Exception as error:
            await asyncio.sleep(outage.begin(error))


async def _listen_while_connected(database_url: str, wake: asyncio.Event, outage: Outage) -> None:
    connection = await connect(
        WORKER, database_url, server_settings={"application_name": listener_name(os.environ.get(START, ""))}
    )
    try:
        await connection.add_listener(OUTBOX_CHANNEL, lambda *_: wake.set())
        outage.end()
        wake.set()
        while True:
            # A connection that a network has forgotten tells nobody so, unless it is asked.
            await asyncio.sleep(CHECK_SECONDS)
            await connection.execute("SELECT 1", timeout=CHECK_SECONDS)
    finally:
        connection.terminate()
