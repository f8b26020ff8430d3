"""A type of many accounts, what is attached to it, and a policy that a worker has brought to AWS."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from server.graphql.ids import decode
from tests.benchmarks.setups.arrange import Running
from tests.chaos.clients import Api

ATTACHED = 3
DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "dynamodb:DeleteTable", "Resource": "*"}],
}
ACCOUNTS = """
    INSERT INTO account (tenancy_id, name, alias, email, aws_account_id, role, origin, status, account_type_id,
        created_by_kind, created_by_name)
    SELECT tenancy_id, 'Measured ' || n, 'measured-' || n, 'measured+' || n || '@example.com',
        '9' || lpad(n::text, 11, '0'), 'MEMBER', 'CREATED', 'ACTIVE', id, 'SYSTEM', 'benchmark'
    FROM account_type, generate_series(1, $2::int) n WHERE id = $1
"""
CREATE = """
mutation($name: String!, $document: JSON!) {
  createPolicy(input: {name: $name, description: "", document: $document}) {
    policy { id } userErrors { code message }
  }
}
"""
ATTACH = """
mutation($policy: ID!, $type: ID!) {
  attachPolicy(input: {policyId: $policy, target: {accountTypeId: $type}}) {
    attachment { id } userErrors { code message }
  }
}
"""
DETACH = """
mutation($policy: ID!, $type: ID!) {
  detachPolicy(input: {policyId: $policy, target: {accountTypeId: $type}}) { userErrors { code message } }
}
"""
FOLLOW = """
subscription($policy: ID!) {
  policyRollout(policyId: $policy, after: 0) { policy { state } attachment { state } }
}
"""


class Followed:
    """A policy that is followed; the state of itself or of its one attachment, as each event comes in."""

    def __init__(self, api: Api, policy: str) -> None:
        self.policy = policy
        self._api = api
        self._states: asyncio.Queue[tuple[str, str | None, float]] = asyncio.Queue()

    async def follow(self) -> None:
        """Receive events until cancelled."""
        url = f"{self._api.urls[0].replace('http', 'ws', 1)}/graphql"
        transport = WebsocketsTransport(url=url, init_payload={**self._api.headers})
        document = gql(FOLLOW)
        document.variable_values = {"policy": self.policy}
        async with Client(transport=transport) as session:
            async for result in session.subscribe(document):
                event = result["policyRollout"]
                attachment = event["attachment"]
                state = None if attachment is None else attachment["state"]
                self._states.put_nowait((event["policy"]["state"], state, time.perf_counter()))

    async def until(self, state: str, *, attachment: bool = True) -> float:
        """When the event came with which the policy, or its attachment, was so, by `time.perf_counter`."""
        while True:
            of_policy, of_attachment, at = await self._states.get()
            if "FAILED" in (of_policy, of_attachment):
                raise RuntimeError("AWS has refused the policy; the worker's log says why")
            if (of_attachment if attachment else of_policy) == state:
                return at


@dataclass(frozen=True, slots=True)
class Arranged:
    """A type of many accounts with three policies, one that is attached and detached, and one for bare calls."""

    running: Running
    tenancy_id: UUID
    account_type: str
    followed: Followed
    bare: "Bare"

    @property
    def account_type_id(self) -> UUID:
        return decode(self.account_type, "typ")

    async def change(self, mutation: str) -> None:
        """Attach or detach the policy that is followed."""
        await _ask(self.running.api, mutation, policy=self.followed.policy, type=self.account_type)


@dataclass(frozen=True, slots=True)
class Bare:
    """The policy that no rollout is about, as AWS and PostgreSQL know it."""

    policy_id: UUID
    aws_policy_id: str
    unit: str


@asynccontextmanager
async def arranged(running: Running, accounts: int) -> AsyncIterator[Arranged]:
    """The accounts are written to the database alone: AWS is asked about their unit, not about them."""
    api = running.api
    account_type = await api.create_account_type("Measured")
    connection = await asyncpg.connect(running.services.worker_url)
    try:
        await connection.execute(ACCOUNTS, decode(account_type, "typ"), accounts)
        async with _following(api, [await _create(api, f"Attached {n}") for n in range(ATTACHED)]) as attached:
            for each in attached:
                await _ask(api, ATTACH, policy=each.policy, type=account_type)
                await each.until("ACTIVE")
        bare, policy = await _create(api, "Bare"), await _create(api, "Followed")
        async with _following(api, [bare, policy]) as [beside, followed]:
            await beside.until("ACTIVE", attachment=False)
            await followed.until("ACTIVE", attachment=False)
            row = await connection.fetchrow(
                "SELECT kind.tenancy_id, organizational_unit_id, policy.id, aws_policy_id FROM account_type kind"
                " JOIN policy USING (tenancy_id) WHERE kind.id = $1 AND policy.id = $2",
                decode(account_type, "typ"),
                decode(bare, "pol"),
            )
            assert row is not None
            found = Bare(row["id"], row["aws_policy_id"], row["organizational_unit_id"])
            yield Arranged(running, row["tenancy_id"], account_type, followed, found)
    finally:
        await connection.close()


@asynccontextmanager
async def _following(api: Api, policies: Sequence[str]) -> AsyncIterator[list[Followed]]:
    followed = [Followed(api, policy) for policy in policies]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.follow()) for each in followed]
        yield followed
        for task in tasks:
            task.cancel()


async def _create(api: Api, name: str) -> str:
    created = await _ask(api, CREATE, name=name, document=DOCUMENT)
    return str(created["policy"]["id"])


async def _ask(api: Api, mutation: str, **variables: object) -> dict[str, Any]:
    """The payload of a mutation; raises RuntimeError when it is refused."""
    [payload] = (await api.ask(mutation, **variables)).values()
    if payload["userErrors"]:
        raise RuntimeError(f"refused: {payload['userErrors']}")
    answer: dict[str, Any] = payload
    return answer
