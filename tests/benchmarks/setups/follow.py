"""Accounts followed to their end, over the subscription."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from tests.chaos.clients import Api

# A connection carries at most a hundred.
SUBSCRIPTIONS = 50
FOLLOW = """
subscription($id: ID!) {
  accountSetup(accountId: $id, after: 0) {
    at
    account { status awsAccountId }
    stage { name status attempts error { code message } }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Followed:
    """One setup, in seconds of the machine's clock, as PostgreSQL stamped its events."""

    requested: float
    # When a worker first took it up.
    begun: float
    ended: float
    aws_account_id: str | None
    # How often a stage had to wait, so that the setup gave its slot up for a while.
    waits: int
    # None for an account that is ACTIVE, otherwise why it is not.
    error: str | None


async def follow(api: Api, accounts: Sequence[str]) -> list[Followed]:
    """Wait until every account is ACTIVE or in ERROR."""
    groups = [accounts[first : first + SUBSCRIPTIONS] for first in range(0, len(accounts), SUBSCRIPTIONS)]
    found = await asyncio.gather(*(_follow_together(api, group) for group in groups))
    return [each for group in found for each in group]


async def _follow_together(api: Api, accounts: Sequence[str]) -> list[Followed]:
    transport = WebsocketsTransport(url=f"{api.urls[0].replace('http', 'ws', 1)}/graphql", init_payload={**api.headers})
    async with Client(transport=transport) as session:
        return await asyncio.gather(*(_follow_one(session, account) for account in accounts))


async def _follow_one(session: Any, account: str) -> Followed:
    document = gql(FOLLOW)
    document.variable_values = {"id": account}
    stamps: list[float] = []
    begun, waits = None, 0
    async for result in session.subscribe(document):
        event = result["accountSetup"]
        stamps.append(datetime.fromisoformat(event["at"]).timestamp())
        if begun is None and event["stage"] is not None:
            begun = stamps[-1]
        waits += event["stage"] is not None and event["stage"]["status"] == "WAITING"
        status = event["account"]["status"]
        if status in ("ACTIVE", "ERROR"):
            error = None if status == "ACTIVE" else str(event["stage"])
            return Followed(stamps[0], begun or stamps[0], stamps[-1], event["account"]["awsAccountId"], waits, error)
    raise AssertionError(f"the events of {account} ended before its setup did")
