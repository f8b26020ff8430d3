"""The ways by which policies reach the accounts of a target: what a preview has to know, read in one transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Text, and_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.models import GONE, Account, AccountRole
from server.policies.models import (
    AttachmentState,
    EffectivePolicy,
    Policy,
    PolicyAttachment,
    PolicyState,
    PolicyVersion,
)
from server.policies.requests import Target

IN_FORCE = (AttachmentState.ACTIVE, AttachmentState.DETACHING)
# What will be: not what is being removed, nor what AWS has refused.
WANTED = (AttachmentState.PENDING, AttachmentState.ACTIVE)

# What is attached to a target, and how far each has come.
Attached: TypeAlias = frozenset[tuple[UUID, AttachmentState]]
# The type of an account and what is attached to itself: accounts that share these differ in their number alone.
Path: TypeAlias = tuple[UUID, Attached]


@dataclass(frozen=True, slots=True)
class Reached:
    name: str
    aws_account_id: str | None
    path: Path


@dataclass(frozen=True, slots=True)
class Known:
    """A policy with the texts of its documents; `in_force` is None where it is not known which one AWS has."""

    name: str
    newest: str
    in_force: str | None
    is_refused: bool

    @property
    def wanted(self) -> str | None:
        """What AWS will have: what it has refused it will not."""
        return self.in_force if self.is_refused else self.newest


@dataclass(frozen=True, slots=True)
class Paths:
    """The accounts of a target by name, what is attached around them, and all those policies."""

    accounts: Sequence[Reached]
    on_tenancy: Attached
    on_types: Mapping[UUID, Attached]
    on_target: Attached
    policies: Mapping[UUID, Known]


async def read_paths(session: AsyncSession, tenancy_id: UUID, target: Target, policy_id: UUID | None) -> Paths:
    """What reaches the accounts of a target that is there, and the policy of `policy_id` besides, if there is one."""
    reached = _reached(tenancy_id, target)
    columns = (Account.id, Account.name, Account.aws_account_id, Account.account_type_id)
    accounts = (await session.execute(select(*columns).where(*reached).order_by(Account.name))).all()
    around = PolicyAttachment.account_id.is_(None) | PolicyAttachment.account_id.in_(select(Account.id).where(*reached))
    attached = select(
        PolicyAttachment.policy_id,
        PolicyAttachment.state,
        PolicyAttachment.account_type_id,
        PolicyAttachment.account_id,
    ).where(PolicyAttachment.tenancy_id == tenancy_id, around)
    by_target: defaultdict[tuple[UUID | None, UUID | None], set[tuple[UUID, AttachmentState]]] = defaultdict(set)
    for policy, state, type_, account in (await session.execute(attached)).all():
        by_target[type_, account].add((policy, state))
    ids = {policy_id, *(policy for found in by_target.values() for policy, _ in found)}
    return Paths(
        accounts=[
            Reached(name, number, (type_, frozenset(by_target.get((None, key), ()))))
            for key, name, number, type_ in accounts
        ],
        on_tenancy=frozenset(by_target.get((None, None), ())),
        on_types={type_: frozenset(found) for (type_, _), found in by_target.items() if type_ is not None},
        on_target=frozenset(by_target.get((target.account_type_id, target.account_id), ())),
        policies=await _read_policies(session, tenancy_id, ids),
    )


async def read_numbers(session: AsyncSession, tenancy_id: UUID, target: Target) -> Sequence[str | None]:
    """The numbers of the accounts that a target reaches; None for one that has none yet."""
    numbers = select(Account.aws_account_id).where(*_reached(tenancy_id, target))
    return (await session.scalars(numbers)).all()


async def read_numbers_of(session: AsyncSession, tenancy_id: UUID, policy_id: UUID) -> Sequence[str | None]:
    """The same of the accounts that a policy reaches by what it is attached to."""
    of_policy = select(EffectivePolicy.account_id).where(
        EffectivePolicy.tenancy_id == tenancy_id, EffectivePolicy.policy_id == policy_id
    )
    numbers = select(Account.aws_account_id).where(*_reached(tenancy_id, Target()), Account.id.in_(of_policy))
    return (await session.scalars(numbers)).all()


def _reached(tenancy_id: UUID, target: Target) -> list[ColumnElement[bool]]:
    return [
        Account.tenancy_id == tenancy_id,
        Account.role != AccountRole.MANAGEMENT,
        Account.status.not_in(GONE),
        *([Account.account_type_id == target.account_type_id] if target.account_type_id else ()),
        *([Account.id == target.account_id] if target.account_id else ()),
    ]


async def _read_policies(session: AsyncSession, tenancy_id: UUID, ids: set[UUID | None]) -> dict[UUID, Known]:
    """The documents stay text: to read thousands of them is work for a thread."""
    in_aws = and_(PolicyVersion.policy_id == Policy.id, PolicyVersion.number == Policy.aws_version)
    newest = type_coerce(Policy.document, Text()).label("newest")
    in_force = type_coerce(PolicyVersion.document, Text()).label("in_force")
    found = (
        select(Policy.id, Policy.name, newest, in_force, Policy.state)
        .outerjoin(PolicyVersion, in_aws)
        .where(Policy.tenancy_id == tenancy_id, Policy.id.in_(ids))
    )
    return {
        key: Known(name, latest, in_aws_document, state is PolicyState.FAILED)
        for key, name, latest, in_aws_document, state in (await session.execute(found)).all()
    }
