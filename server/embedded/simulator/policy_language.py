"""What AWS takes as a service control policy, written from its pages and not from Freehold's own checks.

Where those let something pass that AWS refuses, a test that goes to the simulator is to notice.

Sources: "SCP syntax" in the User Guide of AWS Organizations; "Grammar of the IAM JSON policy language" and "IAM JSON
policy elements" (Sid, Resource, Condition operators) in that of IAM.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

VERSIONS = (None, "2008-10-17", "2012-10-17")
DOCUMENT_KEYS = frozenset({"Version", "Id", "Statement"})
# Without Principal and NotPrincipal: an SCP is about everybody in the account.
STATEMENT_KEYS = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"})
SID = re.compile(r"[A-Za-z0-9]*")
ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[\w*?-]+", re.ASCII)
CONDITION_KEY = re.compile(r"[^\s:]+:.+")
OPERATOR = re.compile(r"(?:ForAllValues:|ForAnyValue:)?(?P<name>[A-Za-z]+?)(?P<if_exists>IfExists)?")
NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
# The forms of ISO 8601 that the W3C names; the time of day may lack its zone.
TIME = re.compile(r"\d{4}-\d{2}(-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?)?", re.ASCII)
ADDRESS = re.compile(r"[0-9A-Fa-f.:]+(/\d+)?", re.ASCII)


def is_policy(content: str) -> bool:
    """Whether AWS takes the text as a policy."""
    try:
        document = json.loads(content, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict) or document.keys() - DOCUMENT_KEYS or document.get("Version") not in VERSIONS:
        return False
    statements = _one_or_more(document.get("Statement"))
    if not statements or not all(_is_statement(each) for each in statements):
        return False
    sids = [each["Sid"] for each in statements if each.get("Sid")]
    return len(sids) == len(set(sids))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _one_or_more(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_statement(statement: Any) -> bool:
    if not isinstance(statement, dict) or statement.keys() - STATEMENT_KEYS:
        return False
    sid = statement.get("Sid", "")
    return (
        statement.get("Effect") in ("Allow", "Deny")
        and isinstance(sid, str)
        and SID.fullmatch(sid) is not None
        and _has_one_of(statement, "Action", lambda action: ACTION.fullmatch(action) is not None)
        and _has_one_of(statement, "Resource", _is_resource)
        and _is_condition(statement.get("Condition", {}))
    )


def _has_one_of(statement: Mapping[str, Any], name: str, is_right: Callable[[str], bool]) -> bool:
    """Whether it has the element or its opposite, with values that are right."""
    if (name in statement) == (f"Not{name}" in statement):
        return False
    values = _one_or_more(statement.get(name, statement.get(f"Not{name}")))
    return bool(values) and all(isinstance(value, str) and is_right(value) for value in values)


def _is_resource(resource: str) -> bool:
    if resource == "*":
        return True
    parts = resource.split(":", 5)
    is_whole = len(parts) == 6 or (len(parts) > 3 and resource.endswith("*"))
    return is_whole and parts[0] == "arn" and re.fullmatch(r"[a-zA-Z0-9-]+", parts[2]) is not None


def _is_condition(condition: Any) -> bool:
    return isinstance(condition, dict) and all(_is_comparison(name, keys) for name, keys in condition.items())


def _is_comparison(name: str, keys: Any) -> bool:
    operator = OPERATOR.fullmatch(name)
    is_value = None if operator is None else OPERATORS.get(operator["name"])
    if operator is None or is_value is None or not isinstance(keys, dict):
        return False
    if operator["name"] == "Null" and operator["if_exists"]:
        return False
    # The case of a key does not count.
    once = len({key.lower() for key in keys}) == len(keys)
    return once and all(
        CONDITION_KEY.fullmatch(key) is not None and _are_values(values, is_value) for key, values in keys.items()
    )


def _are_values(values: Any, is_value: Callable[[str], bool]) -> bool:
    listed = _one_or_more(values)
    if not listed or not all(isinstance(each, str | int | float) for each in listed):
        return False
    texts = [each if isinstance(each, str) else json.dumps(each) for each in listed]
    # Policy variables stand for what is known only when the policy is applied.
    return all("${" in text or is_value(text) for text in texts)


def _is_number(value: str) -> bool:
    return NUMBER.fullmatch(value) is not None


def _is_time(value: str) -> bool:
    return TIME.fullmatch(value) is not None or _is_number(value)


def _is_network(value: str) -> bool:
    if not ADDRESS.fullmatch(value):
        return False
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def _is_boolean(value: str) -> bool:
    return value.lower() in ("true", "false")


ORDERS = ("Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")
TEXTS = ("Equals", "NotEquals", "EqualsIgnoreCase", "NotEqualsIgnoreCase", "Like", "NotLike")
# Each with what its values have to be.
OPERATORS: Mapping[str, Callable[[str], bool]] = {
    **dict.fromkeys((f"String{name}" for name in TEXTS), lambda _: True),
    **dict.fromkeys(("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike", "BinaryEquals"), lambda _: True),
    **dict.fromkeys((f"Numeric{order}" for order in ORDERS), _is_number),
    **dict.fromkeys((f"Date{order}" for order in ORDERS), _is_time),
    **dict.fromkeys(("IpAddress", "NotIpAddress"), _is_network),
    **dict.fromkeys(("Bool", "Null"), _is_boolean),
}
