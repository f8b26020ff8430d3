"""Whether the condition of a statement holds for a request of which not everything is known.

IAM User Guide, "Condition operators", "Conditions with multiple context keys or values" and "Policy variables":
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

import operator as relations
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from server.policies.document import Condition
from server.policies.operators import Comparison, Kind, Operator, Qualifier, boolean, date, network, number, operator
from server.policies.wildcards import Tokens, arn_matches, compiled, tokens

VARIABLE = re.compile(r"\$\{([^}]*)\}")
RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": relations.eq,
    "LessThan": relations.lt,
    "LessThanEquals": relations.le,
    "GreaterThan": relations.gt,
    "GreaterThanEquals": relations.ge,
}


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither true nor false, for reasons that finish the sentence "it depends on ..."."""

    reasons: tuple[str, ...]


Truth = bool | Unknown


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a request, by context key in lower case: its values, or None when the request lacks the key.

    Of a key that is not there nothing is known.
    """

    values: Mapping[str, tuple[str, ...] | None]


def context(values: Mapping[str, str | Iterable[str] | None]) -> Context:
    """A context of single values, lists of values and, as None, absent keys."""
    return Context(
        {
            key.lower(): (value,) if isinstance(value, str) else None if value is None else tuple(value)
            for key, value in values.items()
        }
    )


def all_of(parts: Iterable[Truth]) -> Truth:
    """False as soon as a part is false, so that what is unknown of the others does not count."""
    unknown: list[str] = []
    for part in parts:
        if part is False:
            return False
        unknown.extend(part.reasons if isinstance(part, Unknown) else ())
    return Unknown(tuple(dict.fromkeys(unknown))) if unknown else True


def any_of(parts: Iterable[Truth]) -> Truth:
    return negated(all_of(negated(part) for part in parts))


def negated(truth: Truth) -> Truth:
    return truth if isinstance(truth, Unknown) else not truth


def holds(condition: Condition, known: Context) -> Truth:
    """Whether one key's condition holds."""
    found = operator(condition.operator)
    if (
        found is None
        or found.comparison.kind is Kind.BINARY
        or (found.qualifier and found.comparison.kind is Kind.NULL)
    ):
        return Unknown((f"the operator {condition.operator}, which Freehold does not evaluate",))
    if condition.key.lower() not in known.values:
        return Unknown((f"the value of {condition.key}",))
    values = known.values[condition.key.lower()]
    if found.comparison.kind is Kind.NULL:
        return any(boolean(each) is (not values) for each in condition.values)
    if not values or (found.qualifier and values == ("",)):
        return _holds_for_nothing(found)
    if found.qualifier is None and len(values) > 1:
        return Unknown((f"{condition.key}, which has several values and no ForAllValues or ForAnyValue",))
    over = any_of if found.qualifier is Qualifier.FOR_ANY_VALUE else all_of
    return over(_holds_for(value, found.comparison, condition, known) for value in values)


def _holds_for_nothing(found: Operator) -> bool:
    """Without the key a positive operator does not match, and one that asks for a mismatch is satisfied."""
    if found.if_exists or found.qualifier is Qualifier.FOR_ALL_VALUES:
        return True
    return found.comparison.negated and found.qualifier is None


def _holds_for(value: str, comparison: Comparison, condition: Condition, known: Context) -> Truth:
    """Several values in the condition are alternatives; a negated operator holds when none of them matches."""
    matched = any_of(_compare(comparison, value, each, known) for each in condition.values)
    return negated(matched) if comparison.negated else matched


def _compare(comparison: Comparison, value: str, wanted: str, known: Context) -> Truth:
    if comparison.kind is Kind.STRING:
        return _compare_strings(comparison.relation, value, wanted, known)
    if comparison.kind is Kind.ARN:
        pattern = expanded(wanted, known)
        matched = pattern if isinstance(pattern, Unknown) else arn_matches(pattern, value)
        return Unknown((f"{wanted}, which is not an ARN of six parts",)) if matched is None else matched
    if comparison.kind is Kind.ADDRESS:
        return _within(value, wanted)
    read: Callable[[str], object] = {Kind.NUMBER: number, Kind.DATE: date, Kind.BOOLEAN: boolean}[comparison.kind]
    one, other = read(value), read(wanted)
    if one is None or other is None:
        return Unknown((f"{value if one is None else wanted}, which is no {comparison.kind.lower()}",))
    return RELATIONS[comparison.relation](one, other)


def _compare_strings(relation: str, value: str, wanted: str, known: Context) -> Truth:
    if relation == "Like":
        pattern = expanded(wanted, known)
        return pattern if isinstance(pattern, Unknown) else compiled(pattern).matches(value)
    text = _expanded_text(wanted, known)
    if isinstance(text, Unknown):
        return text
    return value == text if relation == "Equals" else value.casefold() == text.casefold()


def _within(value: str, wanted: str) -> Truth:
    address, around = network(value), network(wanted)
    if address is None or around is None:
        return Unknown((f"{value if address is None else wanted}, which is no IP address",))
    if address.version != around.version:
        return False
    first, last = int(address.network_address), int(address.broadcast_address)
    return int(around.network_address) <= first and last <= int(around.broadcast_address)


def expanded(text: str, known: Context) -> Tokens | Unknown:
    """A pattern with its policy variables replaced; what replaces them has no wildcards."""
    parts = _parts(text, known)
    if isinstance(parts, Unknown):
        return parts
    return tuple(chain.from_iterable(part if literal else tokens(part) for part, literal in parts))


def _expanded_text(text: str, known: Context) -> str | Unknown:
    parts = _parts(text, known)
    return parts if isinstance(parts, Unknown) else "".join(part for part, _ in parts)


def _parts(text: str, known: Context) -> list[tuple[str, bool]] | Unknown:
    """The pieces of a text, each with whether it is a variable's value."""
    parts: list[tuple[str, bool]] = []
    end = 0
    for variable in VARIABLE.finditer(text):
        value = _variable(variable[1], known)
        if isinstance(value, Unknown):
            return value
        parts += [(text[end : variable.start()], False), (value, True)]
        end = variable.end()
    return [*parts, (text[end:], False)]


def _variable(name: str, known: Context) -> str | Unknown:
    """`${*}`, `${?}` and `${$}` are those characters; `${key, 'default'}` has a default for an absent key."""
    if name in ("*", "?", "$"):
        return name
    key, comma, default = (part.strip() for part in name.partition(","))
    values = known.values.get(key.lower(), ())
    if values is None and comma:
        return default.strip("'")
    if values is None or len(values) != 1:
        return Unknown((f"the policy variable ${{{name}}}",))
    return values[0]
