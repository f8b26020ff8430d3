"""What can be wrong with the document of a policy."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

# A hostile document can have a fault every three characters; nobody reads more than these.
MOST_PROBLEMS = 100
SHOWN_CHARACTERS = 80


class ProblemCode(StrEnum):
    TOO_LONG = "TOO_LONG"
    NOT_JSON = "NOT_JSON"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    WRONG_TYPE = "WRONG_TYPE"
    MISSING = "MISSING"
    CONFLICT = "CONFLICT"
    UNKNOWN_ELEMENT = "UNKNOWN_ELEMENT"
    INVALID_VALUE = "INVALID_VALUE"
    DUPLICATE_SID = "DUPLICATE_SID"
    UNKNOWN_OPERATOR = "UNKNOWN_OPERATOR"
    UNKNOWN_SERVICE = "UNKNOWN_SERVICE"
    UNKNOWN_ACTION = "UNKNOWN_ACTION"
    MORE = "MORE"


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault; the message says what would be right.

    `path` is its place in the document, such as `Statement[1].Action[0]`, and empty for the document as a whole. Line
    and column count from 1 and are known only of a document that came as text.
    """

    code: ProblemCode
    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None


def shown(value: object) -> str:
    """A value from a document as a message quotes it: never longer than a line."""
    return f'"{_short(value)}"' if isinstance(value, str) else _short(repr(value))


def below(path: str, key: str) -> str:
    """The path of what an object at `path` has under `key`."""
    return f"{path}.{_short(key)}" if path else _short(key)


def _short(text: str) -> str:
    """No longer than a line, and without half a surrogate pair, which no answer could carry."""
    text = text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
    return text.encode(errors="backslashreplace").decode()


def bounded(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The first hundred problems, and whether there are more; those are not looked for."""
    found = tuple(islice(problems, MOST_PROBLEMS + 1))
    if len(found) <= MOST_PROBLEMS:
        return found
    return (*found[:-1], Problem(ProblemCode.MORE, f"There are more problems than these {MOST_PROBLEMS}."))
