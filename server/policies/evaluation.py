"""What service control policies make of a request: allowed, denied, or not to be told from what is known.

AWS Organizations User Guide, "SCP evaluation":
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_evaluation.html
Allowed means that the policies leave it open: it still needs a permission in the account.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.policies.conditions import Context, Truth, Unknown, all_of, any_of, expanded, holds, negated
from server.policies.document import Document, Effect, Statement
from server.policies.wildcards import compiled, matches, resource_tokens


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

    `doubts` are the statements on which an UNKNOWN outcome depends.
    """

    outcome: Outcome
    denied_by: tuple[Place, ...] = ()
    not_allowed_at: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """`resource` is an ARN, `*` when the action is not about single resources, and None when it is not known."""

    action: str
    resource: str | None
    context: Context


def evaluate(levels: Sequence[Level], action: str, resource: str | None, known: Context) -> Decision:
    """The decision for an account below these levels: the root first, each unit on the way, the account last.

    A statement that denies wins over everything; otherwise something has to allow the request at every level. The
    management account is under no level and everything is allowed there. An outcome other than UNKNOWN would be the
    same whatever the context keys that are not known.
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
    return Decision(Outcome.UNKNOWN, doubts=tuple(doubts)) if doubts else Decision(Outcome.ALLOWED)


def _applying(level: Level, request: Request) -> Iterator[tuple[Place, Truth]]:
    """The statements of a level that apply or may apply."""
    for named in level.policies:
        for statement in named.document.statements:
            truth = applies(statement, request)
            if truth is not False:
                yield Place(level.name, named.policy, statement), truth


def applies(statement: Statement, request: Request) -> Truth:
    """Whether the request is one of those that the statement is about."""
    return all_of(_parts(statement, request))


def _parts(statement: Statement, request: Request) -> Iterator[Truth]:
    listed = any(matches(pattern, request.action, ignore_case=True) for pattern in statement.actions)
    yield listed is not statement.all_but_actions
    about = any_of(_is_about(pattern, request) for pattern in statement.resources)
    yield negated(about) if statement.all_but_resources else about
    for condition in statement.conditions:
        yield holds(condition, request.context)


def _is_about(pattern: str, request: Request) -> Truth:
    if pattern == "*":
        return True
    if request.resource is None:
        return Unknown((f"the resource of {request.action}",))
    found = expanded(pattern, request.context)
    return found if isinstance(found, Unknown) else compiled(resource_tokens(found)).matches(request.resource)
