"""What a preview decides about requests: in how many accounts each is allowed now, and will be."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

from server.policies.actions import resource_of
from server.policies.conditions import Context, context
from server.policies.document import Document, parse_document
from server.policies.evaluation import (
    Decision,
    Level,
    NamedDocument,
    Outcome,
    about,
    depends_on,
    evaluate,
    statements_of,
)
from server.policies.lockout import FULL_ACCESS
from server.policies.models import AttachmentState
from server.policies.paths import IN_FORCE, WANTED, Attached, Path, Paths
from server.policies.preview_types import PolicyDecision, PolicyRequestInput, RequestPreview
from server.policies.requests import Target
from server.policies.wildcards import ANY_CHARACTER, ANYTHING, SOME_ACCOUNT
from server.policies.work import TooMuchWork, Work

REASONS = 5
UNNAMED = "this document"
LEVELS = ("the tenancy", "the account type", "the account")
ACCOUNT = "aws:PrincipalAccount"
TOO_MUCH = "It takes more to decide than a preview may take: ask for fewer requests, or about fewer accounts at a time."
ASKED = str.maketrans({"*": ANYTHING, "?": ANY_CHARACTER})


@dataclass(frozen=True, slots=True)
class New:
    """The document that is previewed, of a policy that is there or of none yet."""

    document: Document
    policy_id: UUID | None
    name: str | None
    target: Target


@dataclass(slots=True)
class _Told:
    """A pair of outcomes of a request: in how many accounts, and why."""

    accounts: int = 0
    before: dict[str, None] = field(default_factory=dict)
    after: dict[str, None] = field(default_factory=dict)


class Decisions:
    """The decisions about the accounts that a target reaches. Accounts that nothing tells apart share theirs."""

    def __init__(self, paths: Paths, new: New, organization_id: str | None) -> None:
        self._paths = paths
        self._new = new
        self._organization_id = organization_id
        self._work = Work()
        self._numbers = _numbers_by_path(paths, new.target)
        self._documents: dict[str, Document | None] = {}
        self._levels: dict[Path, tuple[list[Level], list[Level]]] = {}

    def of(self, request: PolicyRequestInput) -> Iterator[RequestPreview]:
        """Before and after, for each pair of outcomes; UNKNOWN is what takes more than a preview may."""
        told: defaultdict[tuple[Outcome, Outcome], _Told] = defaultdict(_Told)
        left = Counter({path: numbers.total() for path, numbers in self._numbers.items()})
        try:
            for path in self._numbers:
                for number, (before, after) in self._decided(path, request):
                    pair = told[before.outcome, after.outcome]
                    pair.accounts += number
                    left[path] -= number
                    _add(pair.before, before)
                    _add(pair.after, after)
        except TooMuchWork:
            pair = told[Outcome.UNKNOWN, Outcome.UNKNOWN]
            pair.accounts += left.total()
            pair.before[TOO_MUCH] = pair.after[TOO_MUCH] = None
        for (outcome, new_outcome), pair in told.items():
            yield RequestPreview(
                action=request.action,
                resource=resource_asked(request),
                accounts=pair.accounts,
                before=PolicyDecision(outcome=outcome, reasons=[*pair.before][:REASONS]),
                after=PolicyDecision(outcome=new_outcome, reasons=[*pair.after][:REASONS]),
            )

    def _decided(self, path: Path, request: PolicyRequestInput) -> Iterator[tuple[int, tuple[Decision, Decision]]]:
        """The decisions about the accounts of a path, each with the number of accounts that it is about."""
        before, after = (about(levels, request.action, self._work) for levels in self._levels_of(path))
        keys = frozenset[str]().union(*(depends_on(each, self._work) for each in statements_of([*before, *after])))
        numbers = self._numbers[path]
        if ACCOUNT.lower() not in keys:
            numbers = Counter({SOME_ACCOUNT: numbers.total()})
        resource = resource_of(request.action) or _open(request.resource)
        for number, count in numbers.items():
            known = self._known(request, number)
            was, will_be = (evaluate(each, request.action, resource, known) for each in (before, after))
            yield count, (was, will_be)

    def _known(self, request: PolicyRequestInput, number: str) -> Context:
        known: dict[str, Sequence[str] | str | None] = {ACCOUNT: number}
        if self._organization_id is not None:
            known["aws:PrincipalOrgID"] = self._organization_id
        given = {each.key: each.values or None for each in request.context or ()}
        return context({**given, **known}, self._work)

    def _levels_of(self, path: Path) -> tuple[list[Level], list[Level]]:
        """What is in force around the accounts of a path, and what will be."""
        if path not in self._levels:
            attached = (self._paths.on_tenancy, self._paths.on_types.get(path[0], frozenset()), path[1])
            target = self._new.target
            new_at = LEVELS[1 if target.account_type_id else 2 if target.account_id else 0]
            pairs = [*zip(LEVELS, attached, strict=True)]
            self._levels[path] = (
                [self._level(level, _in_state(on, IN_FORCE), {}) for level, on in pairs],
                [self._after(level, on, comes=level == new_at) for level, on in pairs],
            )
        return self._levels[path]

    def _after(self, level: str, attached: Attached, *, comes: bool) -> Level:
        """The level as it will be: the policy changes wherever it is, and comes to the target."""
        policies = _in_state(attached, WANTED)
        new = self._new
        named = NamedDocument(new.name or UNNAMED, new.document)
        if comes or new.policy_id in policies:
            return self._level(level, policies - {new.policy_id}, {new.policy_id: named}, after=True)
        return self._level(level, policies, {}, after=True)

    def _level(
        self,
        level: str,
        policies: Collection[UUID | None],
        more: Mapping[UUID | None, NamedDocument],
        *,
        after: bool = False,
    ) -> Level:
        found: list[NamedDocument] = []
        not_known: list[str] = []
        for known in sorted((self._paths.policies[key] for key in policies if key), key=lambda each: each.name):
            text = known.wanted if after else known.in_force
            document = None if text is None else self._parsed(text)
            if document is not None:
                found.append(NamedDocument(known.name, document))
            elif text is None:
                not_known.append(f"the policy {known.name}, of which it is not known which version AWS has")
            else:
                not_known.append(f"the policy {known.name}, whose document is older than the checks and breaks them")
        return Level(level, (FULL_ACCESS, *found, *more.values()), tuple(not_known))

    def _parsed(self, text: str) -> Document | None:
        if text not in self._documents:
            self._work.spend(len(text))
            found = parse_document(json.loads(text))
            self._documents[text] = found if isinstance(found, Document) else None
        return self._documents[text]


def resource_asked(request: PolicyRequestInput) -> str | None:
    """The resource for which AWS decides the action: `*` where it is not about single ones."""
    return resource_of(request.action) or request.resource


def _open(resource: str | None) -> str | None:
    """The resource with what stands for the characters that its wildcards leave open."""
    return None if resource is None else resource.translate(ASKED)


def _in_state(attached: Attached, states: Collection[AttachmentState]) -> frozenset[UUID | None]:
    return frozenset(policy for policy, state in attached if state in states)


def _numbers_by_path(paths: Paths, target: Target) -> dict[Path, Counter[str]]:
    """How often each account's number is on each path; paths with the most accounts come first."""
    found: defaultdict[Path, Counter[str]] = defaultdict(Counter)
    for account in paths.accounts:
        found[account.path][account.aws_account_id or SOME_ACCOUNT] += 1
    if not found:
        # For the accounts to come.
        found[target.account_type_id or UUID(int=0), frozenset()] = Counter({SOME_ACCOUNT: 0})
    return dict(sorted(found.items(), key=lambda each: -each[1].total()))


def _add(reasons: dict[str, None], decision: Decision) -> None:
    if len(reasons) < REASONS:
        reasons.update(dict.fromkeys(islice(_reasons(decision), REASONS)))


def _reasons(decision: Decision) -> Iterator[str]:
    yield from (f"Denied by {place}." for place in decision.denied_by)
    yield from (f"No policy of {level} allows it." for level in decision.not_allowed_at)
    for doubt in decision.doubts:
        yield f"{doubt.place}: it depends on {' and '.join(doubt.reasons)}."
    yield from (f"It depends on {each}." for each in decision.not_known)
