"""The documents of service control policies (SCPs): their grammar, and what evaluation needs of them.

AWS Organizations User Guide, "SCP syntax":
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_syntax.html
IAM User Guide, "Grammar of the IAM JSON policy language":
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
Since September 2025 SCPs take the whole IAM language but for principals: NotAction, NotResource, Condition and single
resources with either effect, and wildcards anywhere in an action's name (AWS Security Blog, "AWS Organizations service
control policy now supports full IAM language").
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from server.database import minified
from server.policies.operators import COMPARISONS, IF_EXISTS, operator, right_value
from server.policies.problems import Problem, ProblemCode, below, bounded, shown
from server.policies.source import located, read

VERSION = "2012-10-17"
ELEMENTS = ("Version", "Statement")
STATEMENT_ELEMENTS = ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition")
# IAM User Guide, "IAM JSON policy elements: Sid".
SID = re.compile(r"[A-Za-z0-9]*")
ACTION = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9*?_-]+")
# The partition may have wildcards, the service may not (IAM User Guide, "IAM JSON policy elements: Resource"). A final
# asterisk reaches over all that follows.
RESOURCE = re.compile(r"arn:[^:]+:[a-zA-Z0-9-]+:(?:[^:]*:[^:]*:.+|.*\*)", re.DOTALL)
# After a slash stands the key of a tag, which may have spaces.
KEY = re.compile(r"[^\s:]+:.+")


Check = Callable[[object], tuple[ProblemCode, str] | None]


class Effect(StrEnum):
    ALLOW = "Allow"
    DENY = "Deny"


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a condition. It holds when the operator holds for the key's value and one of these."""

    operator: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """`all_but_actions` tells NotAction from Action, `all_but_resources` NotResource from Resource."""

    index: int
    sid: str | None
    effect: Effect
    actions: tuple[str, ...]
    all_but_actions: bool
    resources: tuple[str, ...]
    all_but_resources: bool
    conditions: tuple[Condition, ...]

    @property
    def name(self) -> str:
        """The Sid, or where it stands in the document, from 1: `statement 2`."""
        return self.sid or f"statement {self.index + 1}"


@dataclass(frozen=True, slots=True)
class Document:
    """A document without a problem of grammar. `value` is as its author wrote it."""

    value: Mapping[str, Any]
    statements: tuple[Statement, ...]


def parse_document(source: object, longest: int = 100_000) -> Document | tuple[Problem, ...]:
    """The document that a JSON object or its text is, or every problem that it has.

    Of a text each problem has its line and column. What is longer than `longest` characters, spaces included, is not
    looked at. Whether actions exist is not asked here (`check_actions`), nor whether AWS takes a document of this size
    (`check_size`).
    """
    value = read(source, longest)
    if isinstance(value, tuple):
        return value
    problems = bounded(_document_problems(value))
    if problems:
        return located(source, problems) if isinstance(source, str) else problems
    statements = (_statement(index, each) for index, (_, each) in enumerate(listed(value["Statement"], "Statement")))
    return Document(value, tuple(statements))


def check_size(document: Document, limit: int) -> Problem | None:
    """A problem when AWS would refuse the document for its size; `limit` is in characters.

    AWS counts characters, not bytes, of the text as it is sent (AWS Organizations User Guide, "Quotas and service
    limits": https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html). Freehold sends it
    minified.
    """
    length = len(minified(document.value))
    if length <= limit:
        return None
    message = (
        f"Without needless spaces the document has {length} characters; AWS takes {limit}. Take away {length - limit}:"
        " join actions with wildcards, leave out Sids, or make two policies of it."
    )
    return Problem(ProblemCode.TOO_LONG, message)


def listed(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The path and value of each of what may be a list or one alone."""
    if isinstance(value, list):
        yield from ((f"{path}[{index}]", each) for index, each in enumerate(value))
    else:
        yield path, value


def _statement(index: int, value: dict[str, Any]) -> Statement:
    actions, resources = (_strings(value, name) for name in ("Action", "Resource"))
    return Statement(
        index=index,
        sid=value.get("Sid") or None,
        effect=Effect(value["Effect"]),
        actions=actions,
        all_but_actions="NotAction" in value,
        resources=resources,
        all_but_resources="NotResource" in value,
        conditions=tuple(
            Condition(name, key, tuple(_text(each) for _, each in listed(values, "")))
            for name, keys in value.get("Condition", {}).items()
            for key, values in keys.items()
        ),
    )


def _strings(statement: dict[str, Any], name: str) -> tuple[str, ...]:
    value = statement[name] if name in statement else statement[f"Not{name}"]
    return tuple(each for _, each in listed(value, ""))


def _text(value: str | float | bool) -> str:
    """A condition's value as AWS compares it: quotation marks around numbers and booleans are optional."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _document_problems(document: dict[str, Any]) -> Iterator[Problem]:
    yield from _unknown_elements(document, ELEMENTS, "")
    if "Version" not in document:
        yield Problem(ProblemCode.MISSING, f'A policy has "Version": "{VERSION}".', "Version")
    elif document["Version"] != VERSION:
        message = f'The version of the policy language is "{VERSION}", not {shown(document["Version"])}.'
        yield Problem(ProblemCode.INVALID_VALUE, message, "Version")
    if "Statement" not in document:
        yield Problem(ProblemCode.MISSING, 'A policy has a "Statement": one, or a list of them.', "Statement")
        return
    if document["Statement"] == []:
        yield Problem(ProblemCode.MISSING, "A policy has at least one statement.", "Statement")
    sids: dict[str, str] = {}
    for path, statement in listed(document["Statement"], "Statement"):
        if not isinstance(statement, dict):
            message = f"A statement is an object with Effect, Action and Resource, not {shown(statement)}."
            yield Problem(ProblemCode.WRONG_TYPE, message, path)
            continue
        yield from _sid_problems(statement, path, sids)
        yield from _statement_problems(statement, path)


def _statement_problems(statement: dict[str, Any], path: str) -> Iterator[Problem]:
    yield from _unknown_elements(statement, STATEMENT_ELEMENTS, path)
    effect = statement.get("Effect", "")
    if "Effect" not in statement:
        yield Problem(ProblemCode.MISSING, 'A statement has an Effect, "Allow" or "Deny".', f"{path}.Effect")
    elif effect not in ("Allow", "Deny"):
        message = f'Effect is "Allow" or "Deny", in this spelling, not {shown(effect)}.'
        yield Problem(ProblemCode.INVALID_VALUE, message, f"{path}.Effect")
    if "Condition" in statement:
        yield from _condition_problems(statement["Condition"], f"{path}.Condition")
    yield from _element_problems(statement, path, "Action", _action_problem)
    yield from _element_problems(statement, path, "Resource", _resource_problem)


def _element_problems(statement: dict[str, Any], path: str, name: str, check: Check) -> Iterator[Problem]:
    """Of Action and NotAction, or of Resource and NotResource."""
    present = [each for each in (name, f"Not{name}") if each in statement]
    if len(present) == 2:
        yield Problem(ProblemCode.CONFLICT, f"A statement has {name} or Not{name}, not both.", f"{path}.Not{name}")
    elif not present:
        yield Problem(ProblemCode.MISSING, f"A statement has {name} or Not{name}.", f"{path}.{name}")
    for element in present:
        if statement[element] == []:
            yield Problem(ProblemCode.MISSING, f"{element} has at least one entry.", f"{path}.{element}")
        for place, value in listed(statement[element], f"{path}.{element}"):
            problem = check(value)
            if problem:
                yield Problem(*problem, place)


def _unknown_elements(value: dict[str, Any], known: tuple[str, ...], path: str) -> Iterator[Problem]:
    for key in value:
        if key in known:
            continue
        if key in ("Principal", "NotPrincipal"):
            message = (
                f"A service control policy applies to every principal of its accounts and has no {key}. To exempt some,"
                " use a Condition on aws:PrincipalArn."
            )
        else:
            near = _nearest(key, known)
            message = f"There is no {shown(key)} here{near or '; there is ' + ', '.join(known)}."
        yield Problem(ProblemCode.UNKNOWN_ELEMENT, message, below(path, key))


def _sid_problems(statement: dict[str, Any], path: str, sids: dict[str, str]) -> Iterator[Problem]:
    sid = statement.get("Sid", "")
    if not isinstance(sid, str) or not SID.fullmatch(sid):
        message = f"A Sid has letters A-Z, a-z and digits only; {shown(sid)} has others."
        yield Problem(ProblemCode.INVALID_VALUE, message, f"{path}.Sid")
    elif sid in sids:
        message = f"{shown(sid)} is the Sid of {sids[sid]} already; a Sid is unique in its document."
        yield Problem(ProblemCode.DUPLICATE_SID, message, f"{path}.Sid")
    elif sid:
        sids[sid] = path


def _action_problem(action: object) -> tuple[ProblemCode, str] | None:
    if not isinstance(action, str):
        return ProblemCode.WRONG_TYPE, f'An action is a string such as "s3:GetObject", not {shown(action)}.'
    if action == "*" or ACTION.fullmatch(action):
        return None
    return ProblemCode.INVALID_VALUE, (
        f'An action is "*", or a service, a colon and a name such as "s3:GetObject" or "s3:Get*", where the service'
        f" has no wildcard; {shown(action)} is not."
    )


def _resource_problem(resource: object) -> tuple[ProblemCode, str] | None:
    if not isinstance(resource, str):
        return ProblemCode.WRONG_TYPE, f'A resource is a string such as "*", not {shown(resource)}.'
    if resource == "*" or RESOURCE.fullmatch(resource):
        return None
    return ProblemCode.INVALID_VALUE, (
        f'A resource is "*", or an ARN such as "arn:aws:s3:::bucket/*", where the service has no wildcard;'
        f" {shown(resource)} is not."
    )


def _condition_problems(condition: object, path: str) -> Iterator[Problem]:
    if not isinstance(condition, dict):
        message = 'A condition is an object such as {"StringEquals": {"aws:RequestedRegion": "eu-central-1"}}.'
        yield Problem(ProblemCode.WRONG_TYPE, message, path)
        return
    for name, keys in condition.items():
        place = below(path, name)
        if operator(name) is None:
            message = f"{shown(name)} is no condition operator{_nearest(name, _operator_names(name))}."
            yield Problem(ProblemCode.UNKNOWN_OPERATOR, message, place)
        if not isinstance(keys, dict):
            message = 'An operator has condition keys and their values, such as {"aws:SourceIp": "203.0.113.0/24"},'
            yield Problem(ProblemCode.WRONG_TYPE, f"{message} not {shown(keys)}.", place)
            continue
        yield from _key_problems(name, keys, place)


def _key_problems(name: str, keys: dict[str, Any], path: str) -> Iterator[Problem]:
    known = operator(name)
    seen: set[str] = set()
    for key, values in keys.items():
        place = below(path, key)
        if not KEY.fullmatch(key):
            message = f"A condition key has a prefix and a colon, such as aws:PrincipalArn; {shown(key)} has not."
            yield Problem(ProblemCode.INVALID_VALUE, message, place)
        if key.lower() in seen:
            message = f"{shown(key)} is there already in another spelling; the case of condition keys does not count."
            yield Problem(ProblemCode.DUPLICATE_KEY, message, place)
        seen.add(key.lower())
        if values == []:
            yield Problem(ProblemCode.MISSING, "A condition key has at least one value.", place)
        for where, value in listed(values, place):
            if not isinstance(value, str | int | float):
                message = f"A condition's value is a string, a number, true or false, not {shown(value)}."
                yield Problem(ProblemCode.WRONG_TYPE, message, where)
                continue
            right = right_value(known.comparison.kind, _text(value)) if known else None
            if right:
                message = f"{name} compares with {right}, not {shown(_text(value))}."
                yield Problem(ProblemCode.INVALID_VALUE, message, where)


def _operator_names(like: str) -> list[str]:
    """Every name that an operator can have with the qualifier and suffix of this one."""
    qualifier = f"{like.rpartition(':')[0]}:" if ":" in like else ""
    suffix = IF_EXISTS if like.lower().endswith(IF_EXISTS.lower()) else ""
    names = [f"{qualifier}{name}{suffix}" for name in COMPARISONS]
    return [name for name in names if operator(name)] or list(COMPARISONS)


def _nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """The end of a message that names the nearest of the known names, or nothing."""
    spellings = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name[:100].lower(), spellings, n=1)
    return f"; the nearest is {spellings[near[0]]}" if near else ""
