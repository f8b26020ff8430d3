"""Drift: what AWS has otherwise than a policy is on record, and what of it a rollout mends.

What was read of AWS counts only if the policy was at rest before, and has not changed since: nothing that a rollout is
about to do, or has just done, is drift. Locks are taken in the order comparison, policy.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.account_types.models import AccountType
from server.accounts.models import GONE, Account
from server.database import minified
from server.leases import LASTING, NO_ERROR, change
from server.policies.models import (
    AttachmentState,
    DriftKind,
    Policy,
    PolicyAttachment,
    PolicyComparison,
    PolicyDrift,
    PolicyState,
)
from server.policies.service import TARGET_IN_AWS, forget_drift, on_targets, record_event
from server.tenancies.models import Tenancy

# In these states AWS has been asked all that is to be asked of a policy, unless it is due; some version is in force.
AT_REST = (PolicyState.ACTIVE, PolicyState.FAILED)
# What another comparison may find otherwise of the same drift; since when it is known stays, and that it is mended.
FOUND = ("account_type_id", "account_id", "target_tenancy_id", "detail", "name", "description", "document")


@dataclass(frozen=True, slots=True)
class Reading:
    """A policy at rest, as it was before AWS was asked about it."""

    policy_id: UUID
    name: str
    aws_policy_id: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class InAws:
    """A policy as AWS has it. `content` is the text of its document; `targets` are the names there, by id."""

    name: str
    description: str
    content: str
    targets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """What is new about a policy, and what is no longer so: a sentence each."""

    found: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Target:
    """A target that Freehold knows: as sentences name it, and as the columns of a drift hold it."""

    label: str
    columns: Mapping[str, UUID]


async def next_reading(session: AsyncSession, comparison: PolicyComparison) -> Reading | None:
    """The next policy at rest, of which AWS is to be asked; None when there is none left."""
    found = select(Policy).where(
        Policy.tenancy_id == comparison.tenancy_id,
        Policy.state.in_(AT_REST),
        Policy.next_attempt_at.is_(None),
        Policy.aws_policy_id.is_not(None),
        *(() if comparison.after_policy_id is None else (Policy.id > comparison.after_policy_id,)),
    )
    policy = (await session.scalars(found.order_by(Policy.id).limit(1))).one_or_none()
    if policy is None:
        return None
    assert policy.aws_policy_id is not None, "asked for"
    return Reading(policy.id, policy.name, policy.aws_policy_id, policy.last_seq)


def pass_over(comparison: PolicyComparison, reading: Reading) -> None:
    """Leave a policy that does not come to rest to the next comparison."""
    comparison.after_policy_id = reading.policy_id


async def keep_reading(
    session: AsyncSession, comparison: PolicyComparison, reading: Reading, in_aws: InAws | None
) -> Judged | None:
    """Write down what AWS has otherwise; `in_aws` is None where AWS has no such policy.

    None, and nothing is written, when the policy has changed since it was read, or is about to.
    """
    locked = select(Policy).where(Policy.id == reading.policy_id).with_for_update()
    policy = (await session.scalars(locked.execution_options(populate_existing=True))).one_or_none()
    if policy is None or policy.next_attempt_at is not None or policy.last_seq != reading.last_seq:
        return None
    comparison.after_policy_id = policy.id
    rows = await session.scalars(select(PolicyDrift).where(PolicyDrift.policy_id == policy.id))
    # What was found of a document before AWS refused the next one is neither still so nor no longer so.
    left_out = {DriftKind.DOCUMENT_CHANGED} if in_aws is not None and policy.state is PolicyState.FAILED else set()
    before = {(each.kind, each.aws_target_id): each for each in rows if each.kind not in left_out}
    now = {(each.kind, each.aws_target_id): each for each in await _differences(session, policy, in_aws)}
    judged = Judged(
        tuple(drift.detail for key, drift in now.items() if key not in before or _differ(before[key], drift)),
        tuple(drift.detail for key, drift in before.items() if key not in now),
    )
    for key, drift in before.items():
        if key not in now:
            await session.delete(drift)
    for key, drift in now.items():
        if key in before:
            for name in FOUND:
                setattr(before[key], name, getattr(drift, name))
        else:
            session.add(drift)
    # A policy that is ACTIVE has the error of a mending, for as long as there is something to mend.
    has_error = policy.state is PolicyState.ACTIVE and policy.error_code is not None
    is_solved = has_error and not any(before[key].mending for key in before.keys() & now.keys())
    if is_solved:
        change(policy, **NO_ERROR)
    if judged != Judged() or is_solved:
        await record_event(session, policy)
    return judged


async def next_mend(session: AsyncSession, policy: Policy) -> str | None:
    """The id in AWS of a target from which a rollout is to detach the policy, as it was attached there elsewhere."""
    if policy.aws_policy_id is None or policy.error_class in LASTING:
        return None
    # Somebody may have attached it there through Freehold in the meantime.
    attached = on_targets(select(TARGET_IN_AWS), policy).where(TARGET_IN_AWS.is_not(None))
    found = select(PolicyDrift.aws_target_id).where(
        PolicyDrift.policy_id == policy.id,
        PolicyDrift.kind == DriftKind.ATTACHED_ELSEWHERE,
        PolicyDrift.mending,
        PolicyDrift.aws_target_id.not_in(attached),
    )
    return (await session.scalars(found.order_by(PolicyDrift.aws_target_id).limit(1))).one_or_none()


async def keep_mended(session: AsyncSession, policy: Policy, aws_target_id: str) -> None:
    """AWS has detached it from a target on which it was attached elsewhere."""
    policy.attempts = 0
    if policy.state is PolicyState.ACTIVE:
        change(policy, **NO_ERROR)
    await forget_drift(session, policy, PolicyDrift.aws_target_id == aws_target_id)
    await record_event(session, policy)


def _differ(one: PolicyDrift, other: PolicyDrift) -> bool:
    return any(getattr(one, name) != getattr(other, name) for name in FOUND)


async def _differences(session: AsyncSession, policy: Policy, in_aws: InAws | None) -> list[PolicyDrift]:
    ours = {"policy_id": policy.id, "tenancy_id": policy.tenancy_id}
    if in_aws is None:
        detail = f"Somebody has deleted it in AWS, where it was {policy.aws_policy_id}; it is in force nowhere."
        return [PolicyDrift(**ours, kind=DriftKind.POLICY_MISSING, aws_target_id="", detail=detail)]
    found = []
    # Which version AWS has of a policy whose last one it has refused is not on record.
    if policy.state is PolicyState.ACTIVE and (changed := tuple(_changed(policy, in_aws))):
        called = f"; it is called {in_aws.name!r} there" if in_aws.name != policy.name else ""
        found.append(
            PolicyDrift(
                **ours,
                kind=DriftKind.DOCUMENT_CHANGED,
                aws_target_id="",
                detail=f"Somebody has changed its {' and its '.join(changed)} in AWS{called}.",
                name=in_aws.name,
                description=in_aws.description,
                document=_kept(in_aws.content),
            )
        )
    in_force, attached = await _attached(session, policy)
    known = await _targets(session, policy.tenancy_id, in_force | in_aws.targets.keys())
    for target in sorted(in_force - in_aws.targets.keys()):
        detail = f"Somebody has detached it in AWS from {known[target].label} ({target})."
        found.append(_of_target(ours, DriftKind.DETACHED, target, detail, known))
    for target in sorted(in_aws.targets.keys() - attached):
        label = known[target].label if target in known else repr(in_aws.targets[target])
        detail = f"Somebody has attached it in AWS to {label} ({target})."
        found.append(_of_target(ours, DriftKind.ATTACHED_ELSEWHERE, target, detail, known))
    return found


def _of_target(
    ours: Mapping[str, UUID], kind: DriftKind, target: str, detail: str, known: Mapping[str, _Target]
) -> PolicyDrift:
    columns = known[target].columns if target in known else {}
    return PolicyDrift(**ours, kind=kind, aws_target_id=target, detail=detail, **columns)


def _changed(policy: Policy, in_aws: InAws) -> Iterator[str]:
    if _parsed(in_aws.content) != policy.document:
        yield "document"
    if in_aws.name != policy.name:
        yield "name"
    if in_aws.description != policy.description:
        yield "description"


def _parsed(content: str) -> Any:
    """The document; None for text that is no JSON. At most some ten thousand characters, as AWS has it."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _kept(content: str) -> dict[str, Any] | None:
    """The document as it can be kept: none that PostgreSQL does not take as text."""
    document = _parsed(content)
    if not isinstance(document, dict):
        return None
    try:
        minified(document).encode()
    except ValueError:
        return None
    return document


async def _attached(session: AsyncSession, policy: Policy) -> tuple[set[str], set[str]]:
    """The targets in AWS on which it is in force, and those of all attachments; closed accounts may be either way."""
    columns = select(PolicyAttachment.state, TARGET_IN_AWS, Account.status)
    rows = (await session.execute(on_targets(columns, policy).where(TARGET_IN_AWS.is_not(None)))).all()
    in_force = {target for state, target, status in rows if state is AttachmentState.ACTIVE and status not in GONE}
    return in_force, {target for _, target, _ in rows}


async def _targets(session: AsyncSession, tenancy_id: UUID, ids: set[str]) -> dict[str, _Target]:
    """Those of the ids in AWS that Freehold knows."""
    types = select(AccountType.organizational_unit_id, AccountType.id, AccountType.name).where(
        AccountType.tenancy_id == tenancy_id, AccountType.organizational_unit_id.in_(ids)
    )
    accounts = select(Account.aws_account_id, Account.id, Account.name).where(
        Account.tenancy_id == tenancy_id, Account.aws_account_id.in_(ids)
    )
    root = await session.scalar(select(Tenancy.aws_root_id).where(Tenancy.id == tenancy_id))
    found = {} if root is None else {root: _Target("the tenancy", {"target_tenancy_id": tenancy_id})}
    for target, key, name in (await session.execute(types)).all():
        assert target is not None, "asked for"
        found[target] = _Target(f"the account type {name!r}", {"account_type_id": key})
    for target, key, name in (await session.execute(accounts)).all():
        assert target is not None, "asked for"
        found[target] = _Target(f"the account {name!r}", {"account_id": key})
    return found
