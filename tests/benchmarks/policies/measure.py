"""An attachment and a preview, each in turn with its limit: the least that has to be done for it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aioboto3
import asyncpg

from server.config import SIMULATOR_CREDENTIALS
from server.planner.reader import Reader
from tests.benchmarks.policies.arrange import ATTACH, DETACH, DOCUMENT, Arranged
from tests.benchmarks.setups.arrange import HOME

WARM = 2
PREVIEW = """
query($type: ID!, $document: JSON!) {
  previewPolicy(
    target: {accountTypeId: $type}
    document: $document
    requests: [{action: "dynamodb:DeleteTable"}, {action: "s3:GetObject"}, {action: "ec2:RunInstances"}]
  ) {
    preview {
      accountsAffected { count names }
      statementsAdded
      deniedCalls { call statement }
      quota { code limit used }
      requests { action accounts before { outcome } after { outcome reasons } }
    }
    userErrors { code message }
  }
}
"""
# Whatever a preview reads: the tenancy, the stages, the type's accounts, what is attached around them.
ROWS = """
SELECT convert_to(json_build_object(
    'tenancy', (SELECT json_build_array(regions, home_region, aws_organization_id) FROM tenancy WHERE id = $1),
    'calls', (SELECT json_agg(DISTINCT call) FROM stage_definition, unnest(permissions) call
        WHERE roles && '{MEMBER,SECURITY,LOGGING}'),
    'accounts', (SELECT json_agg(json_build_array(id, name, aws_account_id) ORDER BY name) FROM account
        WHERE tenancy_id = $1 AND account_type_id = $2 AND role <> 'MANAGEMENT'
            AND status NOT IN ('CANCELLED', 'CLOSED')),
    'policies', (SELECT json_agg(json_build_array(account_type_id, account_id, policy.id, name, document))
        FROM policy_attachment attachment JOIN policy ON policy.id = policy_id
        WHERE attachment.tenancy_id = $1 AND attachment.state IN ('PENDING', 'ACTIVE')
            AND (account_id IS NULL OR account_id IN (SELECT id FROM account WHERE account_type_id = $2)))
)::text, 'UTF8')
"""
ATTACHED = """
    INSERT INTO policy_attachment (tenancy_id, policy_id, account_type_id, state, created_by_kind, created_by_name)
    VALUES ($1, $2, $3, 'ACTIVE', 'SYSTEM', 'benchmark')
"""


@dataclass
class Measured:
    """Times in milliseconds; of each attachment the calls of AttachPolicy, of each preview the accounts reached."""

    attach: list[float] = field(default_factory=list)
    attach_limit: list[float] = field(default_factory=list)
    preview: list[float] = field(default_factory=list)
    preview_limit: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    reached: list[int] = field(default_factory=list)


class Limit:
    """The bare call with one insert, and the rows of a preview in one statement written by hand."""

    def __init__(
        self, arranged: Arranged, organizations: Any, database: "asyncpg.Connection[asyncpg.Record]", reader: Reader
    ) -> None:
        self._arranged = arranged
        self._organizations = organizations
        self._database = database
        self._reader = reader
        self._type_id = arranged.account_type_id

    async def attach(self) -> float:
        bare = self._arranged.bare
        began = time.perf_counter()
        await self._organizations.attach_policy(PolicyId=bare.aws_policy_id, TargetId=bare.unit)
        await self._database.execute(ATTACHED, self._arranged.tenancy_id, bare.policy_id, self._type_id)
        took = time.perf_counter() - began
        await self._organizations.detach_policy(PolicyId=bare.aws_policy_id, TargetId=bare.unit)
        await self._database.execute("DELETE FROM policy_attachment WHERE policy_id = $1", bare.policy_id)
        return took

    async def preview(self) -> float:
        began = time.perf_counter()
        await self._reader.fetch(self._arranged.tenancy_id, ROWS, [self._arranged.tenancy_id, self._type_id])
        return time.perf_counter() - began


async def measure(arranged: Arranged, rounds: int) -> Measured:
    """Each of ours in turn with its limit, after rounds that do not count."""
    measured = Measured()
    session = aioboto3.Session(*SIMULATOR_CREDENTIALS)
    services = arranged.running.services
    database, reader = await asyncpg.connect(services.worker_url), Reader(services.app_url)
    try:
        async with session.client(
            "organizations", region_name=HOME, endpoint_url=arranged.running.aws.url
        ) as organizations:
            limit = Limit(arranged, organizations, database, reader)

            async def attach() -> float:
                took, calls = await _attach(arranged)
                measured.calls.append(calls)
                return took

            async def preview() -> float:
                took, reached = await _preview(arranged)
                measured.reached.append(reached)
                return took

            for number in range(WARM + rounds):
                for ours, theirs, work, least in (
                    (measured.attach, measured.attach_limit, attach, limit.attach),
                    (measured.preview, measured.preview_limit, preview, limit.preview),
                ):
                    turns: list[tuple[list[float], Callable[[], Awaitable[float]]]] = [(ours, work), (theirs, least)]
                    for times, turn in turns if number % 2 else reversed(turns):
                        took = await turn()
                        if number >= WARM:
                            times.append(1000 * took)
    finally:
        await reader.close()
        await database.close()
    return measured


async def _attach(arranged: Arranged) -> tuple[float, int]:
    """The seconds from the mutation to the event of ACTIVE, and the calls of AttachPolicy in the meantime."""
    finished = arranged.running.aws.finished
    finished.clear()
    began = time.perf_counter()
    await arranged.change(ATTACH)
    took = await arranged.followed.until("ACTIVE") - began
    await arranged.change(DETACH)
    await arranged.followed.until("DETACHED")
    return took, sum(call.operation == "AttachPolicy" for call in finished)


async def _preview(arranged: Arranged) -> tuple[float, int]:
    """The seconds of a preview, and the accounts that it says are reached."""
    began = time.perf_counter()
    answer = await arranged.running.api.ask(PREVIEW, type=arranged.account_type, document=DOCUMENT)
    took = time.perf_counter() - began
    return took, int(answer["previewPolicy"]["preview"]["accountsAffected"]["count"])
