"""When conditions hold: the facts of the IAM User Guide, with what follows for keys that are absent or not known.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html
"""

from collections.abc import Iterable

import pytest

from server.policies.conditions import Unknown, all_of, context, holds
from tests.server.policies.written import deny, document

ARN = "arn:aws:iam::111122223333:role/Admin"
IN = ["10.0.0.0/8", "2001:db8::/32"]


def held(operator: str, wanted: object, *known: str | Iterable[str] | None, **others: str | None) -> bool | None:
    """Whether `a:b` holds, None when that is not known; without a value the key is not known."""
    (statement,) = document(deny("*", {operator: {"a:b": wanted}})).statements
    values: dict[str, str | Iterable[str] | None] = {f"a:{key}": value for key, value in others.items()}
    if known:
        values["A:B"] = known[0]
    found = all_of(holds(condition, context(values)) for condition in statement.conditions)
    assert not isinstance(found, Unknown) or found.reasons
    return None if isinstance(found, Unknown) else found


@pytest.mark.parametrize(
    ("operator", "wanted", "matching", "other"),
    [
        ("StringEquals", "a*", "a*", "ab"),
        ("StringEquals", ["a", "b"], "b", "B"),
        ("StringEqualsIgnoreCase", "Ab", "aB", "abc"),
        ("StringLike", ["a*", "?x"], "yx", "A"),
        ("ArnEquals", "arn:aws:iam::*:role/A*", ARN, ARN.lower()),
        ("ArnLike", ["arn:aws:iam::*:role/a", ARN], ARN, "111122223333"),
        ("NumericEquals", "10", "10.0", "11"),
        ("NumericLessThan", 10, "9.99", "10"),
        ("NumericLessThanEquals", 10, "10", "10.1"),
        ("NumericGreaterThan", -1, "0", "-1"),
        ("NumericGreaterThanEquals", "2", "10", "1.9"),
        ("DateEquals", "2026-01-31T10:00:00Z", "2026-01-31T11:00:00+01:00", "2026-01-31"),
        ("DateLessThan", "2026", "2025-12-31T23:59:59Z", "1767225600"),
        ("DateLessThanEquals", "2026-02", "2026-02-01", "2026-02-01T00:00:01Z"),
        ("DateGreaterThan", 1767225600, "2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z"),
        ("DateGreaterThanEquals", "2026-01-31", "2026-01-31", "2026-01-30"),
        ("Bool", "true", "True", "false"),
        ("Bool", False, "false", "true"),
        ("IpAddress", IN, "10.255.0.1", "11.0.0.1"),
        ("IpAddress", IN, "2001:DB8::1", "2001:db9::1"),
        ("IpAddress", "203.0.113.7", "203.0.113.7", "203.0.113.8"),
    ],
)
def test_an_operator_and_its_negation(operator: str, wanted: object, matching: str, other: str) -> None:
    assert (held(operator, wanted, matching), held(operator, wanted, other)) == (True, False)
    assert held(operator, wanted, None) is False, "without the key the values do not match"
    assert held(f"{operator}IfExists", wanted, None) is True
    assert held(f"{operator}IfExists", wanted, other) is False
    assert held(operator, wanted) is None
    negation = {"IpAddress": "NotIpAddress"}.get(operator) or operator.replace("Equals", "NotEquals").replace(
        "Like", "NotLike"
    )
    if operator not in ("Bool", negation) and "Than" not in operator:
        assert (held(negation, wanted, matching), held(negation, wanted, other)) == (False, True)
        assert held(negation, wanted, None) is True, "a mismatch is asked for, and an absent key is one"
        assert held(negation, wanted) is None


@pytest.mark.parametrize(
    ("wanted", "absent", "present"), [("true", True, False), (False, False, True), (["true", "false"], True, True)]
)
def test_null_asks_whether_the_key_is_absent(wanted: object, absent: bool, present: bool) -> None:
    assert (held("Null", wanted, None), held("Null", wanted, "x"), held("Null", wanted)) == (absent, present, None)


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        # The DynamoDB attributes of "Multivalued context keys".
        ("ForAllValues:StringLike", ["PostDateTime", "Message"], True),
        ("ForAllValues:StringLike", ["PostDateTime", "UserName"], False),
        ("ForAnyValue:StringLike", ["PostDateTime", "UserName"], True),
        ("ForAnyValue:StringLike", ["UserName"], False),
        ("ForAllValues:StringNotLike", ["UserName", "ID"], True),
        ("ForAllValues:StringNotLike", ["UserName", "Tags"], False),
        ("ForAnyValue:StringNotLike", ["UserName", "Tags"], True),
        ("ForAnyValue:StringNotLike", ["Message", "Tags"], False),
        # Without values every one of them matches and none does.
        ("ForAllValues:StringLike", None, True),
        ("ForAllValues:StringLike", [], True),
        ("ForAllValues:StringLike", [""], True),
        ("ForAllValues:StringNotLike", None, True),
        ("ForAnyValue:StringLike", None, False),
        ("ForAnyValue:StringNotLike", None, False),
        ("ForAnyValue:StringLike", [""], False),
        ("ForAnyValue:StringLikeIfExists", None, True),
        # AWS does not say what several values mean to an operator for one.
        ("StringLike", ["Message", "Tags"], None),
        ("StringLike", ["Message"], True),
    ],
)
def test_several_values(operator: str, values: list[str] | None, expected: bool | None) -> None:
    assert held(operator, ["PostDateTime", "Message", "Tags"], values) is expected


def test_keys_and_operators_all_have_to_hold() -> None:
    """Conditions with multiple keys or values: AND over operators and keys, OR over values, NOR when negated."""
    (statement,) = document(
        deny("*", {"StringEquals": {"a:x": ["1", "2"], "a:y": "1"}, "StringNotEquals": {"a:z": ["1", "2"]}})
    ).statements

    def all_held(**known: str | None) -> bool | None:
        found = all_of(holds(each, context({f"a:{k}": v for k, v in known.items()})) for each in statement.conditions)
        return None if isinstance(found, Unknown) else found

    assert all_held(x="2", y="1", z="3") is True
    assert all_held(x="2", y="1", z=None) is True
    assert all_held(x="2", y="2", z="3") is False
    assert all_held(x="2", y="1", z="2") is False
    assert all_held(x="2", y="1") is None
    assert all_held(y="2") is False, "false whatever the keys that are not known"


def test_policy_variables() -> None:
    assert held("StringEquals", "${a:name}", "x*", name="x*") is True
    assert held("StringLike", "home/${a:name}/*", "home/x*/1", name="x*") is True
    assert held("StringLike", "home/${a:name}/*", "home/xy/1", name="x*") is False, "its value has no wildcards"
    assert held("StringLike", "${*}${?}${$}*", "*?$1") is True
    assert held("StringLike", "${*}", "x") is False
    assert held("ArnLike", "arn:aws:iam::${a:account}:role/*", ARN, account="111122223333") is True
    assert held("StringEquals", "${a:name, 'nobody'}", "nobody", name=None) is True
    assert held("StringEquals", ["${a:name}", "y"], "x") is None
    assert held("StringEquals", ["${a:name}", "x"], "x") is True, "one value that matches is enough"
    assert held("StringEquals", "${a:name}", "x", name=None) is None


@pytest.mark.parametrize(
    ("operator", "wanted", "value", "reason"),
    [
        ("BinaryEquals", "QQ==", "A", "the operator BinaryEquals"),
        ("ForAllValues:Null", "true", "A", "the operator ForAllValues:Null"),
        ("NumericEquals", 1, "one", "one, which is no number"),
        ("DateEquals", "2026", "now", "now, which is no date"),
        ("IpAddress", "10.0.0.0/8", "home", "home, which is no IP address"),
        ("ArnLike", "*", ARN, "*, which is not an ARN"),
    ],
)
def test_what_cannot_be_told_says_why(operator: str, wanted: object, value: str, reason: str) -> None:
    (statement,) = document(deny("*", {operator: {"a:b": wanted}})).statements
    found = holds(statement.conditions[0], context({"a:b": value}))
    assert isinstance(found, Unknown)
    assert reason in found.reasons[0]
