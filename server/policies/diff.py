"""What is different between two documents, for a person who decides about it."""

import difflib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.policies.document import Document, Statement, listed

Numbered = tuple[Statement, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Statements are told by Sid or, without one, as `statement 2`: of the new document, the removed of the old.

    `lines` are those of a unified diff of the two in canonical form, with three lines around each change and without
    its heading; none when the documents mean the same.
    """

    lines: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


def difference(old: Document, new: Document) -> Difference:
    """Statements belong together that have one Sid or, without, that are the same, or stand at the same place.

    Neither the order of keys, actions, resources and values counts, nor whether a single one is in a list.
    """
    before, after = _numbered(old), _numbered(new)
    pairs = _pairs(before, after)
    return Difference(
        lines=_lines(old, new),
        added=tuple(statement.name for statement, _ in after if statement.index not in pairs),
        removed=tuple(statement.name for statement, _ in before if statement.index not in pairs.values()),
        changed=tuple(
            statement.name
            for statement, value in after
            if statement.index in pairs and before[pairs[statement.index]][1] != value
        ),
    )


def pretty(document: Document) -> str:
    """The document in the one form that documents of the same meaning share, two spaces deep."""
    whole = {"Version": document.value["Version"], "Statement": [value for _, value in _numbered(document)]}
    return json.dumps(whole, indent=2, ensure_ascii=False)


def _lines(old: Document, new: Document) -> tuple[str, ...]:
    before, after = pretty(old).splitlines(), pretty(new).splitlines()
    heading = 2
    return tuple(difflib.unified_diff(before, after, lineterm="", n=3))[heading:]


def _numbered(document: Document) -> list[Numbered]:
    values = (value for _, value in listed(document.value["Statement"], ""))
    return [(statement, _canonical(value)) for statement, value in zip(document.statements, values, strict=True)]


def _canonical(statement: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for element in ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource"):
        if statement.get(element):
            found[element] = _one_or_more(statement[element])
    if statement.get("Condition"):
        found["Condition"] = {
            name: {key: _one_or_more(values) for key, values in sorted(keys.items())}
            for name, keys in sorted(statement["Condition"].items())
        }
    return found


def _one_or_more(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return value[0] if len(value) == 1 else sorted(value, key=str)


def _pairs(before: list[Numbered], after: list[Numbered]) -> dict[int, int]:
    """The old place of each new statement that was there before, perhaps changed, by its new place."""
    pairs: dict[int, int] = {}
    left: defaultdict[str, list[int]] = defaultdict(list)
    for statement, value in before:
        left[statement.sid or json.dumps(value, sort_keys=True)].append(statement.index)
    for statement, value in after:
        same = left[statement.sid or json.dumps(value, sort_keys=True)]
        if same:
            pairs[statement.index] = same.pop(0)
    alone = {statement.index for statement, _ in before if not statement.sid} - set(pairs.values())
    pairs.update(
        (statement.index, statement.index)
        for statement, _ in after
        if not statement.sid and statement.index not in pairs and statement.index in alone
    )
    return pairs
