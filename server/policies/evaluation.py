"""What service control policies make of a request: allowed, denied, or not to be told from what is known.

AWS Organizations User Guide, "SCP evaluation":
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_evaluation.html
Allowed means that the policies leave it open: it still needs a permission in the account.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from server.policies.conditions import (
    ACCOUNT_NUMBER,
    Context,
    Truth,
    Unknown,
    all_of,
    any_of,
    holds,
    keys_of,
    negated,
    prepared,
    variables_of,
)
from server.policies.document import Document, Effect, Statement
from server.policies.wildcards import (
    ANY_CHARACTER,
    ANY_NAME,
    ANYTHING,
    ARN_PARTS,
    DIGITS,
    SOME_ACCOUNT,
    Pattern,
    compiled,
    of_resource,
    tokens,
)
from server.policies.work import Work


class Outcome(StrEnum):
    ALLOWED = "ALLOWED"
    DENIED = "DENIED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class NamedDocument:
    policy: str
    document: Document


@dataclass(frozen=True, slots=True)
class Level:
    """The root, an organizational unit or the account, with the policies attached to it directly."""

    name: str
    policies: tuple[NamedDocument, ...]
    # What else may deny something here; each finishes the sentence "it depends on ...".
    not_known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A statement, and where it is in force."""

    level: str
    policy: str
    statement: Statement

    def __str__(self) -> str:
        return f"{self.statement.name} of {self.policy}, attached to {self.level}"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A statement that may apply or not; the reasons finish the sentence "it depends on ..."."""

    place: Place
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """`denied_by` are the statements that deny it and `not_allowed_at` the levels where nothing allows it.

    `doubts` are the statements on which an UNKNOWN outcome depends, `not_known` what else it depends on.
    """

    outcome: Outcome
    denied_by: tuple[Place, ...] = ()
    not_allowed_at: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    not_known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """`resource` is an ARN, `*` when the action is not about single resources, and None when it is not known.

    ANYTHING, ANY_CHARACTER and ANY_NAME stand in it for what may be any.
    """

    action: str
    resource: str | None
    context: Context


def evaluate(levels: Sequence[Level], action: str, resource: str | None, known: Context) -> Decision:
    """The decision for an account below these levels: the root first, each unit on the way, the account last.

    A statement that denies wins over everything; otherwise something has to allow the request at every level. The
    management account is under no level and everything is allowed there. An outcome other than UNKNOWN would be the
    same whatever the context keys that are not known. Raises TooMuchWork.
    """
    request = Request(action, resource, known)
    denied_by: list[Place] = []
    not_allowed_at: list[str] = []
    doubts: list[Doubt] = []
    for level in levels:
        allowed = False
        may_allow: list[Doubt] = []
        for place, truth in _applying(level, request):
            if isinstance(truth, Unknown):
                about = doubts if place.statement.effect is Effect.DENY else may_allow
                about.append(Doubt(place, truth.reasons))
            elif place.statement.effect is Effect.DENY:
                denied_by.append(place)
            else:
                allowed = True
        if not allowed:
            doubts += may_allow
            not_allowed_at += () if may_allow else (level.name,)
    if denied_by or not_allowed_at:
        return Decision(Outcome.DENIED, tuple(denied_by), tuple(not_allowed_at))
    not_known = tuple(each for level in levels for each in level.not_known)
    if doubts or not_known:
        return Decision(Outcome.UNKNOWN, doubts=tuple(doubts), not_known=not_known)
    return Decision(Outcome.ALLOWED)


def _applying(level: Level, request: Request) -> Iterator[tuple[Place, Truth]]:
    """The statements of a level that apply or may apply."""
    for named in level.policies:
        for statement in named.document.statements:
            truth = applies(statement, request)
            if truth is not False:
                yield Place(level.name, named.policy, statement), truth


def about(levels: Sequence[Level], action: str, work: Work) -> list[Level]:
    """The levels with those statements alone that are about the action. Raises TooMuchWork."""
    return [
        replace(
            level,
            policies=tuple(replace(each, document=_about(each.document, action, work)) for each in level.policies),
        )
        for level in levels
    ]


def statements_of(levels: Sequence[Level]) -> Iterator[Statement]:
    for level in levels:
        for named in level.policies:
            yield from named.document.statements


def depends_on(statement: Statement, work: Work) -> frozenset[str]:
    """The context keys, in lower case, on which it may depend whether the statement applies."""
    return work.once(("depends on", id(statement)), lambda: frozenset(_keys(statement)))


def applies(statement: Statement, request: Request) -> Truth:
    """Whether the request is one of those that the statement is about."""
    request.context.work.spend(10)
    return all_of(_parts(statement, request))


def _about(document: Document, action: str, work: Work) -> Document:
    work.spend(5)
    return Document(document.value, tuple(each for each in document.statements if _lists(each, action, work)))


def _keys(statement: Statement) -> Iterator[str]:
    for condition in statement.conditions:
        yield from keys_of(condition)
    for resource in statement.resources:
        yield from variables_of(resource)


def _parts(statement: Statement, request: Request) -> Iterator[Truth]:
    yield _lists(statement, request.action, request.context.work)
    about = any_of(_is_about(pattern, request) for pattern in statement.resources)
    yield negated(about) if statement.all_but_resources else about
    for condition in statement.conditions:
        yield holds(condition, request.context)


def _lists(statement: Statement, action: str, work: Work) -> bool:
    """Whether the action is one of the statement's."""

    work.spend(4)
    name = action.lower()

    def is_listed() -> bool:
        work.spend(len(statement.actions))
        return any(_is_action(each.lower(), name, work) for each in statement.actions)

    return work.once(("lists", id(statement), name), is_listed) is not statement.all_but_actions


def _is_action(pattern: str, name: str, work: Work) -> bool:
    # The service of a pattern has no wildcards.
    service = pattern.partition(":")[0]
    if pattern == "*" or not name.startswith(f"{service}:"):
        return pattern == "*"

    def compile_() -> Pattern:
        work.spend(2 * len(pattern))
        return compiled(tokens(pattern))

    return work.once(("action", pattern), compile_).compare(name, work) is True


def _is_about(pattern: str, request: Request) -> Truth:
    if pattern == "*":
        return True
    if request.resource is None:
        return Unknown((f"the resource of {request.action}",))
    found = prepared(pattern, request.context, of_resource)
    if isinstance(found, Unknown):
        return found
    matched = found.compare(request.resource, request.context.work)
    return Unknown(tuple(_resource_doubts(pattern, request, request.resource))) if matched is None else matched


def _resource_doubts(pattern: str, request: Request, resource: str) -> Iterator[str]:
    """Why it is not known whether the pattern matches: the account, or what is in it."""
    is_whole = not {ANYTHING, ANY_CHARACTER, ANY_NAME} & {*resource}
    if not is_whole:
        yield f"the resource of {request.action}"
    account = pattern.split(":", ARN_PARTS - 1)[ARN_PARTS - 2 : ARN_PARTS - 1]
    if is_whole or (SOME_ACCOUNT in resource and set("".join(account)) & set(DIGITS)):
        yield ACCOUNT_NUMBER
