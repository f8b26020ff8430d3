"""What a policy would do on a target, before it is written or attached.

Accounts that the same policies reach are decided about once, however many they are.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.errors import UserErrorCode, refuse
from server.policies.actions import resource_of
from server.policies.checks import ANY_ACCOUNT, Ground, at_stake, parsed, read_ground, statement_of
from server.policies.conditions import Context, context
from server.policies.diff import difference
from server.policies.document import ACTION, Document, parse_document
from server.policies.evaluation import Decision, Level, Outcome, evaluate
from server.policies.lockout import with_full_access
from server.policies.paths import Path, Paths, Reached, number_patterns, read_paths, told_apart
from server.policies.preview_types import (
    AffectedAccounts,
    Certainty,
    DeniedCall,
    PolicyDecision,
    PolicyPreview,
    PolicyRequestInput,
    QuotaAfter,
    RequestPreview,
)
from server.policies.requests import Target, check_target
from server.quotas.models import QuotaCode
from server.quotas.service import read_documented_limit

NAMES, REASONS = 10, 5
MOST_REQUESTS = 50
# Decisions before and after, of 0.1 ms or so each.
MOST_DECISIONS = 4_000
UNNAMED = "this document"
LEVELS = ("the tenancy", "the account type", "the account")


@dataclass(frozen=True, slots=True)
class Asked:
    """What to preview: a document, a policy that is there, or a policy with another document."""

    document: object
    policy_id: UUID | None
    target: Target
    requests: Sequence[PolicyRequestInput]
    accepted: Collection[str] = ()


@dataclass(slots=True)
class _Told:
    """A pair of outcomes of a request: in how many accounts, and why."""

    accounts: int = 0
    before: dict[str, None] = field(default_factory=dict)
    after: dict[str, None] = field(default_factory=dict)


async def preview_policy(engine: AsyncEngine, tenancy_id: UUID, asked: Asked) -> PolicyPreview:
    """What would be. Raises Refused: VALIDATION, NOT_FOUND, PROTECTED, INVALID_DOCUMENT."""
    _check_requests(asked.requests)
    if asked.document is None and asked.policy_id is None:
        raise refuse(UserErrorCode.VALIDATION, "Give `document`, `policyId` or both.", "document")
    async with transaction(engine, tenancy_id) as session:
        await check_target(session, tenancy_id, asked.target, lock=False)
        paths = await read_paths(session, tenancy_id, asked.target, asked.policy_id)
        ground = await read_ground(session, tenancy_id)
        limit = await read_documented_limit(session, tenancy_id, QuotaCode.POLICIES_PER_TARGET)
    if asked.policy_id is not None and asked.policy_id not in paths.policies:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no policy with this id.", "policyId")
    return await asyncio.to_thread(lambda: _Preview(asked, paths, ground).run(limit))


def _check_requests(requests: Sequence[PolicyRequestInput]) -> None:
    if len(requests) > MOST_REQUESTS:
        raise refuse(
            UserErrorCode.VALIDATION, f"{len(requests)} requests are asked for; at most {MOST_REQUESTS}.", "requests"
        )
    for number, each in enumerate(requests):
        if not ACTION.fullmatch(each.action) or set(each.action) & {"*", "?"}:
            message = f'An action is a service, a colon and a name such as "s3:GetObject"; {each.action[:80]!r} is not.'
            raise refuse(UserErrorCode.VALIDATION, message, "requests", str(number), "action")


class _Preview:
    def __init__(self, asked: Asked, paths: Paths, ground: Ground) -> None:
        self._asked = asked
        self._paths = paths
        self._ground = ground
        self._warnings: list[str] = []
        self._documents = dict(self._parse())
        self._key = asked.policy_id
        self._name = paths.policies[asked.policy_id][0] if asked.policy_id else None
        self._old = self._documents.get(asked.policy_id) if asked.policy_id else None
        if asked.document is not None:
            self._new = parsed(asked.document, ground.size_limit, asked.accepted)
        elif self._old is None:
            message = "The policy's document is older than the checks of documents and breaks them; update it first."
            raise refuse(UserErrorCode.INVALID_DOCUMENT, message, "policyId")
        else:
            self._new = self._old

    def run(self, limit: int) -> PolicyPreview:
        is_there = self._key in self._paths.on_target
        old = self._old if is_there else None
        change = difference(old, self._new) if old else None
        added = len(change.added) if change else len(self._new.statements)
        changed, removed = (len(change.changed), len(change.removed)) if change else (0, 0)
        accounts = self._paths.accounts if added or changed or removed else ()
        return PolicyPreview(
            accounts_affected=AffectedAccounts(count=len(accounts), names=[each.name for each in accounts[:NAMES]]),
            statements_added=added,
            statements_changed=changed,
            statements_removed=removed,
            denied_calls=list(self._denied_calls()),
            quota=QuotaAfter(
                code="POLICIES_PER_TARGET", limit=limit, used=len(self._paths.on_target) + 1 + (not is_there)
            ),
            requests=list(self._decided()),
            warnings=self._warnings,
        )

    def _parse(self) -> Iterator[tuple[UUID, Document]]:
        for key, (name, document) in self._paths.policies.items():
            found = parse_document(document)
            if isinstance(found, Document):
                yield key, found
            elif key != self._asked.policy_id:
                self._warnings.append(f"The policy {name!r} is left out: its document is no policy.")

    # Freehold's own calls

    def _denied_calls(self) -> Iterator[DeniedCall]:
        """A statement that denies does so whatever else is in force: only the number of an account can matter."""
        patterns = number_patterns(_texts(self._new))
        numbers = {told_apart(each.aws_account_id, patterns): each.aws_account_id for each in self._paths.accounts}
        regions: defaultdict[tuple[str, str, Certainty, tuple[str, ...]], dict[str, None]] = defaultdict(dict)
        for number in numbers.values() or (None,):
            caller = replace(self._ground.caller, account_id=number or ANY_ACCOUNT)
            lockout = at_stake(self._new, self._ground, caller)
            for certainty, calls in ((Certainty.DENIED, lockout.denied), (Certainty.PERHAPS, lockout.perhaps)):
                for each in calls:
                    key = (each.action, statement_of(each), certainty, each.reasons)
                    regions[key].update(dict.fromkeys(each.regions))
        for (call, statement, certainty, reasons), found in regions.items():
            yield DeniedCall(
                call=call,
                statement=statement,
                policy=self._name,
                certainty=certainty,
                regions=list(found),
                reasons=list(reasons),
            )

    # Requests

    def _decided(self) -> Iterator[RequestPreview]:
        groups = self._groups()
        levels = [(self._levels(each.path), self._levels_after(each.path)) for each, _ in groups]
        for request in self._asked.requests:
            resource = request.resource or resource_of(request.action)
            told: dict[tuple[Outcome, Outcome], _Told] = defaultdict(_Told)
            for (account, number), (before, after) in zip(groups, levels, strict=True):
                known = self._known(request, account)
                was, will_be = (evaluate(each, request.action, resource, known) for each in (before, after))
                pair = told[was.outcome, will_be.outcome]
                pair.accounts += number
                pair.before.update(dict.fromkeys(_reasons(was)))
                pair.after.update(dict.fromkeys(_reasons(will_be)))
            for (outcome, new_outcome), pair in told.items():
                yield RequestPreview(
                    action=request.action,
                    resource=resource,
                    accounts=pair.accounts,
                    before=PolicyDecision(outcome=outcome, reasons=list(pair.before)[:REASONS]),
                    after=PolicyDecision(outcome=new_outcome, reasons=list(pair.after)[:REASONS]),
                )

    def _groups(self) -> list[tuple[Reached, int]]:
        """One of each of the accounts for which everything is the same, and how many these are; the most first."""
        requests = self._asked.requests
        documents = [*self._documents.values(), self._new]
        asked = (text for each in requests for text in (each.resource or "", *_values(each)))
        patterns = number_patterns([*(text for each in documents for text in _texts(each)), *asked])
        groups: dict[object, tuple[Reached, int]] = {}
        for account in self._paths.accounts:
            key = (account.path, account.aws_account_id is None, told_apart(account.aws_account_id, patterns))
            first, number = groups.get(key, (account, 0))
            groups[key] = (first, number + 1)
        found = sorted(groups.values(), key=lambda each: -each[1])
        if not found:
            type_ = self._asked.target.account_type_id
            # For the accounts to come.
            return [(Reached("", None, (type_ or UUID(int=0), frozenset())), 0)]
        most = max(1, MOST_DECISIONS // (2 * len(requests) or 1))
        if len(found) > most:
            left = sum(number for _, number in found[most:])
            self._warnings.append(f"{left} accounts differ too much from the others; no request was decided there.")
        return found[:most]

    def _known(self, request: PolicyRequestInput, account: Reached) -> Context:
        known: dict[str, Sequence[str] | str | None] = {}
        if account.aws_account_id is not None:
            known["aws:PrincipalAccount"] = account.aws_account_id
        if self._ground.caller.organization_id is not None:
            known["aws:PrincipalOrgID"] = self._ground.caller.organization_id
        return context({**known, **{each.key: each.values or None for each in request.context or ()}})

    def _levels(self, path: Path) -> list[Level]:
        attached = (self._paths.on_tenancy, self._paths.on_types.get(path[0], frozenset()), path[1])
        return [
            with_full_access(
                level, {self._paths.policies[key][0]: self._documents[key] for key in keys & self._documents.keys()}
            )
            for level, keys in zip(LEVELS, attached, strict=True)
        ]

    def _levels_after(self, path: Path) -> list[Level]:
        target, name = self._asked.target, self._name or UNNAMED
        at = LEVELS[1 if target.account_type_id else 2 if target.account_id else 0]
        return [self._with_new(level, name, is_target=level.name == at) for level in self._levels(path)]

    def _with_new(self, level: Level, name: str, *, is_target: bool) -> Level:
        """The level as it will be: the policy changes wherever it is, and comes to the target."""
        policies: Mapping[str, Document] = {each.policy: each.document for each in level.policies[1:]}
        if name in policies or is_target:
            policies = {**policies, name: self._new}
        return with_full_access(level.name, policies)


def _texts(document: Document) -> Iterator[str]:
    """What in a document can name an account."""
    for statement in document.statements:
        yield from statement.resources
        for condition in statement.conditions:
            yield from condition.values


def _values(request: PolicyRequestInput) -> Iterator[str]:
    for each in request.context or ():
        yield from each.values


def _reasons(decision: Decision) -> Iterator[str]:
    yield from (f"Denied by {place}." for place in decision.denied_by)
    yield from (f"No policy of {level} allows it." for level in decision.not_allowed_at)
    for doubt in decision.doubts:
        yield f"{doubt.place}: it depends on {' and '.join(doubt.reasons)}."
