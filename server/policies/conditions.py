"""Whether the condition of a statement holds for a request of which not everything is known.

IAM User Guide, "Condition operators", "Conditions with multiple context keys or values" and "Policy variables":
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

import operator as relations
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from server.policies.document import Condition
from server.policies.operators import VALUES, Comparison, Kind, Network, Operator, Qualifier, boolean, operator
from server.policies.wildcards import LONG, NOT_KNOWN, Tokens, compare_arn, compare_texts, compiled, of_arn, tokens
from server.policies.work import Work

T = TypeVar("T")
# The reason where it matters which account it is, and that is not known.
ACCOUNT_NUMBER = "the number of the account"
# Ends a time that is the earliest of those that may be; no request can have it.
AND_LATER = "\x1f"
# For what a context says nothing of, where a key that the request does not have is None.
UNSAID = object()
# Without another brace in it, or many that are open would be looked through again and again.
VARIABLE = re.compile(r"\$\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither true nor false, for reasons that finish the sentence "it depends on ..."."""

    reasons: tuple[str, ...]


Truth = bool | Unknown


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a request, by context key in lower case: its values, or None when the request lacks the key.

    Of a key that is not there nothing is known. `work` bounds what may be compared with it.
    """

    values: Mapping[str, tuple[str, ...] | None]
    work: Work = field(default_factory=Work)


def context(values: Mapping[str, str | Iterable[str] | None], work: Work | None = None) -> Context:
    """A context of single values, lists of values and, as None, absent keys."""
    return Context(
        {
            key.lower(): (value,) if isinstance(value, str) else None if value is None else tuple(value)
            for key, value in values.items()
        },
        work or Work(),
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


def keys_of(condition: Condition) -> tuple[str, ...]:
    """The context keys, in lower case, on which it depends whether the condition holds."""
    return tuple(dict.fromkeys((condition.key.lower(), *chain.from_iterable(map(variables_of, condition.values)))))


def variables_of(text: str) -> tuple[str, ...]:
    """The context keys, in lower case, of the policy variables in a text."""
    if "${" not in text:
        return ()
    return tuple(each[1].partition(",")[0].strip().lower() for each in VARIABLE.finditer(text))


def holds(condition: Condition, known: Context) -> Truth:
    """Whether one key's condition holds. Raises TooMuchWork."""
    known.work.spend(1)
    keys = known.work.once(("keys", id(condition)), lambda: keys_of(condition))
    about = (known.values.get(each, UNSAID) for each in keys)
    return known.work.once(("holds", id(condition), *about), lambda: _holds(condition, known))


def _holds(condition: Condition, known: Context) -> Truth:
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
    wanted = condition.values
    if comparison.kind is Kind.STRING and comparison.relation == "Equals" and not NOT_KNOWN.search(value):
        # Hundreds of account numbers are nothing unusual.
        fixed, variable = known.work.once(("values", id(condition)), lambda: _fixed_and_variable(condition))
        wanted = (value,) if value in fixed else variable
    matched = any_of(_compare(comparison, value, each, known) for each in wanted)
    return negated(matched) if comparison.negated else matched


def _fixed_and_variable(condition: Condition) -> tuple[frozenset[str], tuple[str, ...]]:
    variable = tuple(each for each in condition.values if "${" in each)
    return frozenset(condition.values).difference(variable), variable


def _compare(comparison: Comparison, value: str, wanted: str, known: Context) -> Truth:
    known.work.spend(3)
    if value.endswith(AND_LATER):
        return _compare_since(comparison, value.removesuffix(AND_LATER), wanted, known)
    if comparison.kind is Kind.STRING:
        return _compare_strings(comparison.relation, value, wanted, known)
    if comparison.kind is Kind.ARN:
        return _compare_arns(value, wanted, known)
    if NOT_KNOWN.search(value):
        return Unknown((ACCOUNT_NUMBER,))
    known.work.spend(5)
    one, other = (_read(comparison.kind, each, known.work) for each in (value, wanted))
    if one is None or other is None:
        return Unknown((f"{value if one is None else wanted}, which is no {NOUNS[comparison.kind]}",))
    return RELATIONS[comparison.relation](one, other)


def _read(kind: Kind, text: str, work: Work) -> object:
    def read() -> object:
        work.spend(20)
        return VALUES[kind].read(text)

    return work.once((kind, text), read)


def _compare_since(comparison: Comparison, first: str, wanted: str, known: Context) -> Truth:
    """Of a time that may be later than `first`: what holds then holds, what can hold later is not known."""
    found = _compare(comparison, first, wanted, known) if comparison.kind in (Kind.DATE, Kind.NUMBER) else None
    if found is False and comparison.relation.startswith("LessThan"):
        return False
    is_over = found is False and _compare(Comparison(comparison.kind, "GreaterThan"), first, wanted, known) is True
    return True if found is True else False if is_over else Unknown(("the time",))


def _compare_arns(value: str, wanted: str, known: Context) -> Truth:
    parts = prepared(wanted, known, of_arn)
    if parts is None:
        return Unknown((f"{wanted}, which is not an ARN of six parts",))
    return parts if isinstance(parts, Unknown) else _truth(compare_arn(parts, value, known.work))


def _compare_strings(relation: str, value: str, wanted: str, known: Context) -> Truth:
    if relation == "Like":
        pattern = prepared(wanted, known, compiled)
        return pattern if isinstance(pattern, Unknown) else _truth(pattern.compare(value, known.work))
    parts = _parts(wanted, known)
    if isinstance(parts, Unknown):
        return parts
    text = "".join(part for part, _ in parts)
    known.work.spend(len(text) // 8)
    return _truth(
        compare_texts(value, text) if relation == "Equals" else compare_texts(value.casefold(), text.casefold())
    )


def _truth(matched: bool | None) -> Truth:
    return Unknown((ACCOUNT_NUMBER,)) if matched is None else matched


def _within(address: Network, around: Network) -> bool:
    if address.version != around.version:
        return False
    first, last = int(address.network_address), int(address.broadcast_address)
    return int(around.network_address) <= first and last <= int(around.broadcast_address)


RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": relations.eq,
    "LessThan": relations.lt,
    "LessThanEquals": relations.le,
    "GreaterThan": relations.gt,
    "GreaterThanEquals": relations.ge,
    "Within": _within,
}
NOUNS = {Kind.NUMBER: "number", Kind.DATE: "date", Kind.BOOLEAN: "boolean", Kind.ADDRESS: "IP address"}


def prepared(text: str, known: Context, make: Callable[[Tokens], T]) -> T | Unknown:
    """What `make` makes of a pattern with its policy variables replaced; what replaces them has no wildcards."""

    def prepare() -> T | Unknown:
        parts = _parts(text, known)
        if isinstance(parts, Unknown):
            return parts
        # The bits of a long pattern are long numbers.
        length = sum(len(part) for part, _ in parts)
        known.work.spend(length * (2 + length // LONG))
        return make(tuple(chain.from_iterable(part if literal else tokens(part) for part, literal in parts)))

    names = known.work.once(("variables", text), lambda: variables_of(text)) if "${" in text else ()
    variables = (known.values.get(each, UNSAID) for each in names)
    return known.work.once((make, text, *variables), prepare)


def _parts(text: str, known: Context) -> list[tuple[str, bool]] | Unknown:
    """The pieces of a text, each with whether it is a variable's value."""
    parts: list[tuple[str, bool]] = []
    end = 0
    for variable in VARIABLE.finditer(text):
        value = _variable(variable[1], known)
        if isinstance(value, Unknown):
            return value
        known.work.spend(3 + len(value) // 8)
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
