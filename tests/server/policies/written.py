"""Documents written short, for the tests of what they do."""

from typing import Any

from server.policies.document import Document, parse_document
from server.policies.evaluation import Level, NamedDocument

FULL_ACCESS = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def document(*statements: dict[str, Any]) -> Document:
    """Every resource is meant where a statement names none."""
    whole = [each if {"Resource", "NotResource"} & each.keys() else {**each, "Resource": "*"} for each in statements]
    found = parse_document({"Version": "2012-10-17", "Statement": whole})
    assert isinstance(found, Document), found
    return found


def deny(actions: str | list[str], condition: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": actions, "Condition": condition or {}, **others}


def allow(actions: str | list[str], condition: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    return {**deny(actions, condition, **others), "Effect": "Allow"}


def level(name: str, *statements: dict[str, Any]) -> Level:
    """With a policy for each statement, called by the level and its number."""
    return Level(
        name, tuple(NamedDocument(f"{name}-{i}", document(each)) for i, each in enumerate(statements, start=1))
    )


def open_but_for(*statements: dict[str, Any]) -> list[Level]:
    """A root that allows everything, and an account with these beside FullAWSAccess."""
    return [level("root", FULL_ACCESS), level("account", FULL_ACCESS, *statements)]
