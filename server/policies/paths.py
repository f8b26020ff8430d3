"""The ways by which policies reach the accounts of a target: what a preview has to know, read in one transaction."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.models import GONE, Account, AccountRole
from server.policies.models import AttachmentState, Policy, PolicyAttachment
from server.policies.requests import Target

# What is wanted and may come: not what is being removed, nor what AWS has refused.
IN_FORCE = (AttachmentState.PENDING, AttachmentState.ACTIVE)
# Parts of a text that can stand for the number of an account.
NUMBERS = re.compile(r"[0-9*?]*[0-9][0-9*?]*")
NUMBER_LENGTH = 12

# The type of an account and the policies attached to itself: accounts that share these differ in their number alone.
Path: TypeAlias = tuple[UUID, frozenset[UUID]]


@dataclass(frozen=True, slots=True)
class Reached:
    name: str
    aws_account_id: str | None
    path: Path


@dataclass(frozen=True, slots=True)
class Paths:
    """The accounts of a target by name, what is attached around them, and all those policies: name and document."""

    accounts: Sequence[Reached]
    on_tenancy: frozenset[UUID]
    on_types: Mapping[UUID, frozenset[UUID]]
    on_target: frozenset[UUID]
    policies: Mapping[UUID, tuple[str, dict[str, Any]]]


async def read_paths(session: AsyncSession, tenancy_id: UUID, target: Target, policy_id: UUID | None) -> Paths:
    """What reaches the accounts of a target that is there, and the policy of `policy_id` besides, if there is one."""
    reached = [
        Account.tenancy_id == tenancy_id,
        Account.role != AccountRole.MANAGEMENT,
        Account.status.not_in(GONE),
        *([Account.account_type_id == target.account_type_id] if target.account_type_id else ()),
        *([Account.id == target.account_id] if target.account_id else ()),
    ]
    columns = (Account.id, Account.name, Account.aws_account_id, Account.account_type_id)
    accounts = (await session.execute(select(*columns).where(*reached).order_by(Account.name))).all()
    around = PolicyAttachment.account_id.is_(None) | PolicyAttachment.account_id.in_(select(Account.id).where(*reached))
    attached = select(PolicyAttachment.policy_id, PolicyAttachment.account_type_id, PolicyAttachment.account_id).where(
        PolicyAttachment.tenancy_id == tenancy_id, PolicyAttachment.state.in_(IN_FORCE), around
    )
    by_target: defaultdict[tuple[UUID | None, UUID | None], set[UUID]] = defaultdict(set)
    for policy, type_, account in (await session.execute(attached)).all():
        by_target[type_, account].add(policy)
    ids = {policy_id, *(each for found in by_target.values() for each in found)}
    wanted = select(Policy.id, Policy.name, Policy.document).where(Policy.tenancy_id == tenancy_id, Policy.id.in_(ids))
    return Paths(
        accounts=[
            Reached(name, number, (type_, frozenset(by_target.get((None, key), ()))))
            for key, name, number, type_ in accounts
        ],
        on_tenancy=frozenset(by_target.get((None, None), ())),
        on_types={type_: frozenset(found) for (type_, _), found in by_target.items() if type_ is not None},
        on_target=frozenset(by_target.get((target.account_type_id, target.account_id), ())),
        policies={key: (name, document) for key, name, document in (await session.execute(wanted)).all()},
    )


def number_patterns(texts: Iterable[str]) -> tuple[str, ...]:
    """What in the texts may tell one account from another by its number."""
    found = {each for text in texts for each in NUMBERS.findall(text)}
    return tuple(sorted(each for each in found if set(each) & {"*", "?"} or len(each) == NUMBER_LENGTH))


def told_apart(number: str | None, patterns: Sequence[str]) -> tuple[bool, ...]:
    """Which of the patterns the number of an account matches; all accounts for which it is the same are alike."""
    return tuple(number is not None and fnmatchcase(number, each) for each in patterns)
