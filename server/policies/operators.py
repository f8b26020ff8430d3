"""The condition operators of the IAM policy language: what they compare, and which values they take.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

IF_EXISTS = "IfExists"
NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
# Seconds since 1970: those of 1973 to 2286, so that no other way to write a date is taken for them.
EPOCH = re.compile(r"[0-9]{9,10}(\.[0-9]{1,6})?")
# https://www.w3.org/TR/NOTE-datetime
DATE = re.compile(
    r"(?P<year>[0-9]{4})(-(?P<month>[0-9]{2})"
    r"(-[0-9]{2}(?P<time>T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2}))?)?)?"
)
# An address, and how many bits of it are the network's.
CIDR = re.compile(r"[0-9a-fA-F.:]{2,45}(/[0-9]{1,3})?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Qualifier(StrEnum):
    """How an operator is applied to a context key that has several values."""

    FOR_ALL_VALUES = "ForAllValues"
    FOR_ANY_VALUE = "ForAnyValue"


class Kind(StrEnum):
    STRING = "STRING"
    ARN = "ARN"
    NUMBER = "NUMBER"
    DATE = "DATE"
    BOOLEAN = "BOOLEAN"
    BINARY = "BINARY"
    ADDRESS = "ADDRESS"
    NULL = "NULL"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an operator without its qualifier and suffix does. `relation` is of the request's value to the policy's."""

    kind: Kind
    relation: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Operator:
    comparison: Comparison
    qualifier: Qualifier | None
    if_exists: bool


ORDERS = ("LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")
COMPARISONS = {
    "StringEquals": Comparison(Kind.STRING, "Equals"),
    "StringNotEquals": Comparison(Kind.STRING, "Equals", negated=True),
    "StringEqualsIgnoreCase": Comparison(Kind.STRING, "EqualsIgnoreCase"),
    "StringNotEqualsIgnoreCase": Comparison(Kind.STRING, "EqualsIgnoreCase", negated=True),
    "StringLike": Comparison(Kind.STRING, "Like"),
    "StringNotLike": Comparison(Kind.STRING, "Like", negated=True),
    # AWS: these two behave identically.
    "ArnEquals": Comparison(Kind.ARN, "Like"),
    "ArnLike": Comparison(Kind.ARN, "Like"),
    "ArnNotEquals": Comparison(Kind.ARN, "Like", negated=True),
    "ArnNotLike": Comparison(Kind.ARN, "Like", negated=True),
    "NumericEquals": Comparison(Kind.NUMBER, "Equals"),
    "NumericNotEquals": Comparison(Kind.NUMBER, "Equals", negated=True),
    **{f"Numeric{order}": Comparison(Kind.NUMBER, order) for order in ORDERS},
    "DateEquals": Comparison(Kind.DATE, "Equals"),
    "DateNotEquals": Comparison(Kind.DATE, "Equals", negated=True),
    **{f"Date{order}": Comparison(Kind.DATE, order) for order in ORDERS},
    "Bool": Comparison(Kind.BOOLEAN, "Equals"),
    "BinaryEquals": Comparison(Kind.BINARY, "Equals"),
    "IpAddress": Comparison(Kind.ADDRESS, "Within"),
    "NotIpAddress": Comparison(Kind.ADDRESS, "Within", negated=True),
    "Null": Comparison(Kind.NULL, "Equals"),
}
# The kinds whose values may hold policy variables such as ${aws:PrincipalAccount}.
WITH_VARIABLES = (Kind.STRING, Kind.ARN, Kind.BOOLEAN)


def operator(name: str) -> Operator | None:
    """The operator of that exact name, None when there is none."""
    qualified, colon, bare = name.rpartition(":")
    if colon and qualified not in set(Qualifier):
        return None
    comparison = COMPARISONS.get(bare.removesuffix(IF_EXISTS))
    if comparison is None or (comparison.kind is Kind.NULL and bare != "Null"):
        return None
    return Operator(comparison, Qualifier(qualified) if colon else None, bare.endswith(IF_EXISTS))


def number(text: str) -> Decimal | None:
    return Decimal(text) if NUMBER.fullmatch(text) else None


def date(text: str) -> datetime | None:
    """A time in one of the W3C forms of ISO 8601 or in seconds since 1970; a day, month or year begins in UTC."""
    form = DATE.fullmatch(text)
    try:
        if EPOCH.fullmatch(text):
            return datetime.fromtimestamp(float(text), UTC)
        if form is None:
            return None
        if len(text) <= len("2026-01"):
            return datetime(int(form["year"]), int(form["month"] or 1), 1, tzinfo=UTC)
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def network(text: str) -> Network | None:
    """An address or a range in CIDR notation; an address is a range of one."""
    if not CIDR.fullmatch(text):
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Values:
    """What the values of a kind are: how one is read, and how it is said what would be one."""

    read: Callable[[str], object]
    right: str


VALUES = {
    Kind.NUMBER: Values(number, "a number, such as 10 or 0.5"),
    Kind.DATE: Values(date, "a time, such as 2026-01-31T00:00:00Z, or seconds since 1970"),
    Kind.BOOLEAN: Values(boolean, "true or false"),
    Kind.NULL: Values(boolean, "true or false"),
    Kind.ADDRESS: Values(network, "an IP address or a range, such as 203.0.113.0/24"),
}


def right_value(kind: Kind, text: str) -> str | None:
    """None when an operator of this kind can take the value; otherwise what it takes."""
    values = VALUES.get(kind)
    if values is None or values.read(text) is not None or (kind in WITH_VARIABLES and "${" in text):
        return None
    return values.right
