"""What is different between two documents, for a person who decides about it."""

import difflib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from server.policies.document import Document, Statement, listed

# Lines around each change.
CONTEXT = 3
# Pairs of equal lines: to match so many takes 0.2 s at worst.
MOST_PAIRS = 3_000
Numbered = tuple[Statement, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Statements are told by Sid or, without one, as `statement 2`: of the new document, the removed of the old."""

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
        added=tuple(statement.name for statement, _ in after if statement.index not in pairs),
        removed=tuple(statement.name for statement, _ in before if statement.index not in pairs.values()),
        changed=tuple(
            statement.name
            for statement, value in after
            if statement.index in pairs and before[pairs[statement.index]][1] != value
        ),
    )


def changed_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The lines that differ between two documents as their authors wrote them, as `diff -u` shows them.

    Where lines repeat so often that it would take long to find the best match, all between the first line that differs
    and the last one is shown as replaced.
    """
    before, after = (json.dumps(each, indent=2, ensure_ascii=False).splitlines() for each in (old, new))
    often = Counter(after)
    # difflib itself leaves out those of which there are more.
    most = len(after) // 100 + 1 if len(after) >= 200 else len(after)
    if sum(often[line] for line in before if often[line] <= most) > MOST_PAIRS:
        return "\n".join(_replaced(before, after))
    return "\n".join(difflib.unified_diff(before, after, lineterm=""))


def _replaced(before: list[str], after: list[str]) -> Iterator[str]:
    head = _alike(before, after)
    tail = _alike(before[head:][::-1], after[head:][::-1])
    first, around = max(0, head - CONTEXT), min(tail, CONTEXT)
    if before == after:
        return
    yield from ("--- ", "+++ ")
    lengths = [len(each) - tail + around - first for each in (before, after)]
    yield f"@@ -{first + 1},{lengths[0]} +{first + 1},{lengths[1]} @@"
    yield from (f" {line}" for line in before[first:head])
    yield from (f"-{line}" for line in before[head : len(before) - tail])
    yield from (f"+{line}" for line in after[head : len(after) - tail])
    yield from (f" {line}" for line in before[len(before) - tail :][:CONTEXT])


def _alike(one: list[str], other: list[str]) -> int:
    """How many lines are the same at the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


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
