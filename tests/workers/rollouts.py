"""Policies of a world: written as the API writes them, and rolled out as one worker does."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, update

from server.accounts.service import SYSTEM
from server.database import transaction
from server.policies import requests
from server.policies.mending import mend_drift
from server.policies.models import Policy, PolicyAttachment, PolicyDrift, PolicyEvent
from server.policies.requests import Target
from tests.workers.world import World
from workers.aws.session import QUARANTINE_SECONDS
from workers.lease import Lease, claim
from workers.policies.rollout import POLICY, Rollouts

DOCUMENT: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": ["s3:*"], "Resource": "*"}],
}


@dataclass
class Policies:
    world: World
    # The IAM actions that rollouts were seen to use.
    used: set[str] = field(default_factory=set)

    async def create(self, *targets: Target, name: str | None = None) -> UUID:
        async with transaction(self.world.engine) as session:
            policy_id = await requests.create_policy(
                session,
                SYSTEM,
                self.world.tenancy_id,
                name=name or f"Policy {uuid4().hex}",
                description="d",
                document=DOCUMENT,
            )
        for target in targets:
            await self.attach(policy_id, target)
        return policy_id

    async def update(self, policy_id: UUID, **values: Any) -> None:
        async with transaction(self.world.engine) as session:
            await requests.update_policy(session, SYSTEM, self.world.tenancy_id, policy_id, **values)

    async def attach(self, policy_id: UUID, target: Target) -> UUID:
        async with transaction(self.world.engine) as session:
            return await requests.attach_policy(session, SYSTEM, self.world.tenancy_id, policy_id, target)

    async def detach(self, policy_id: UUID, target: Target) -> None:
        async with transaction(self.world.engine) as session:
            await requests.detach_policy(session, SYSTEM, self.world.tenancy_id, policy_id, target)

    async def delete(self, policy_id: UUID) -> None:
        async with transaction(self.world.engine) as session:
            await requests.delete_policy(session, SYSTEM, self.world.tenancy_id, policy_id)

    async def retry(self, policy_id: UUID) -> None:
        async with transaction(self.world.engine) as session:
            await requests.retry_rollout(session, SYSTEM, self.world.tenancy_id, policy_id)

    async def mend(self, policy_id: UUID) -> None:
        async with transaction(self.world.engine) as session:
            await mend_drift(session, SYSTEM, self.world.tenancy_id, policy_id)

    # Looking

    async def drift(self, policy_id: UUID) -> Sequence[PolicyDrift]:
        rows = select(PolicyDrift).where(PolicyDrift.policy_id == policy_id)
        async with transaction(self.world.engine) as session:
            return (await session.scalars(rows.order_by(PolicyDrift.kind, PolicyDrift.aws_target_id))).all()

    async def get(self, policy_id: UUID) -> Policy:
        async with transaction(self.world.engine) as session:
            return await session.get_one(Policy, policy_id)

    async def due(self) -> Sequence[UUID]:
        rows = select(Policy.id).where(Policy.tenancy_id == self.world.tenancy_id, Policy.next_attempt_at <= func.now())
        async with transaction(self.world.engine) as session:
            return (await session.scalars(rows)).all()

    async def find(self, policy_id: UUID) -> Policy | None:
        async with transaction(self.world.engine) as session:
            return await session.get(Policy, policy_id)

    async def attachments(self, policy_id: UUID) -> Sequence[PolicyAttachment]:
        rows = select(PolicyAttachment).where(PolicyAttachment.policy_id == policy_id)
        async with transaction(self.world.engine) as session:
            return (await session.scalars(rows.order_by(PolicyAttachment.created_at, PolicyAttachment.id))).all()

    async def states(self, policy_id: UUID) -> list[str]:
        """Of the policy, and of its attachments, oldest first."""
        policy = await self.get(policy_id)
        return [policy.state, *(attachment.state for attachment in await self.attachments(policy_id))]

    async def events(self, policy_id: UUID) -> list[tuple[str, str | None]]:
        """The states of the policy and of the attachment that each event tells, numbered without a gap."""
        rows = select(PolicyEvent).where(PolicyEvent.policy_id == policy_id).order_by(PolicyEvent.sequence)
        async with transaction(self.world.engine) as session:
            events = (await session.scalars(rows)).all()
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        return [
            (event.policy["state"], None if event.attachment is None else event.attachment["state"]) for event in events
        ]

    async def in_aws(self, name: str) -> list[dict[str, Any]]:
        """The policies of this name in AWS, each with its document and its targets."""
        async with self.world.aws.client("organizations", "us-east-1") as organizations:
            pages = organizations.get_paginator("list_policies").paginate(Filter="SERVICE_CONTROL_POLICY")
            ids = [each["Id"] async for page in pages for each in page["Policies"] if each["Name"] == name]
            found = []
            for policy_id in ids:
                described = (await organizations.describe_policy(PolicyId=policy_id))["Policy"]
                targets = organizations.get_paginator("list_targets_for_policy").paginate(PolicyId=policy_id)
                found.append(
                    {
                        "id": policy_id,
                        "content": described["Content"],
                        "description": described["PolicySummary"]["Description"],
                        "targets": [each["TargetId"] async for page in targets for each in page["Targets"]],
                    }
                )
        return found

    async def targets(self, policy_id: UUID) -> list[str]:
        [found] = await self.in_aws((await self.get(policy_id)).name)
        targets: list[str] = found["targets"]
        return targets

    # Working

    async def claim(self, policy_id: UUID) -> Lease[Policy]:
        lease = await claim(self.world.engine, POLICY, policy_id)
        assert lease is not None, f"policy {policy_id} is not to be had"
        return lease

    async def roll_out(self, policy_id: UUID) -> Counter[str]:
        """Roll the policy out once, as one worker would; the calls to AWS that it took."""
        lease = await self.claim(policy_id)
        before = self.world.proxy.calls.copy()
        # In a task, as the executor runs it: the guard of its calls is its own.
        await asyncio.create_task(Rollouts(self.world.engine, self.world.aws).run(lease))
        calls = self.world.proxy.calls - before
        self.used.update(f"organizations:{call}" for call in calls)
        return calls

    async def make_due(self, policy_id: UUID) -> None:
        """Let the time pass that a waiting rollout waits for, and that a call takes at most to reach AWS."""
        long_ago = Policy.called_at - timedelta(seconds=QUARANTINE_SECONDS)
        await self._change(policy_id, next_attempt_at=func.now(), lease_until=None, called_at=long_ago)

    async def abandon(self, policy_id: UUID) -> None:
        """Let the lease of a dead worker run out, and no more time pass."""
        await self._change(policy_id, lease_until=None)

    async def _change(self, policy_id: UUID, **values: object) -> None:
        changed = update(Policy).where(Policy.id == policy_id).values(**values)
        async with transaction(self.world.engine) as session:
            await session.execute(changed.execution_options(synchronize_session=False))
