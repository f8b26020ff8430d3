"""A document as it arrives, a JSON object or its text: read in bounded time, whatever it holds."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from server.policies.problems import Problem, ProblemCode, below, bounded, shown

# A condition's value, the deepest part of a policy, is at depth 7.
DEEPEST = 16
NUMBER_CHARACTERS = 30
# What a text may hold between the keys and values of valid JSON; a string may lack its end.
TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\],]|NaN|-?Infinity|-?[0-9][0-9.eE+-]*', re.DOTALL)
COLON = re.compile(r"[ \t\r\n]*:")
# PostgreSQL and AWS take no other.
UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def read(source: object, longest: int) -> dict[str, Any] | tuple[Problem, ...]:
    """The object that `source` is or, as text, describes; otherwise all that is wrong with it as JSON.

    `longest` bounds the characters of the text, or of the keys and values of an object, before anything is parsed.
    """
    if isinstance(source, str):
        problems = _text_problems(source, longest)
        if problems:
            return problems
        source = json.loads(source)
    if not isinstance(source, dict):
        message = 'A policy is a JSON object: {"Version": "2012-10-17", "Statement": [...]}.'
        return (Problem(ProblemCode.WRONG_TYPE, message),)
    return bounded(_unusable(source, longest)) or source


def _text_problems(text: str, longest: int) -> tuple[Problem, ...]:
    if len(text) > longest:
        return (_too_long(str(len(text)), longest),)
    refused = _refused_token(text)
    if refused:
        return (refused,)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return (_at(text, error.pos, ProblemCode.NOT_JSON, f"The document is not JSON: {error.msg}"),)
    return bounded(_duplicate_keys(text))


def _refused_token(text: str) -> Problem | None:
    """The first thing that Python's parser would accept, or would fail at without saying where."""
    depth = 0
    for token in TOKEN.finditer(text):
        found = token[0]
        if found in "{[":
            depth += 1
            if depth > DEEPEST:
                message = f"The document is nested more than {DEEPEST} levels deep, which no policy is"
                return _at(text, token.start(), ProblemCode.NOT_JSON, message)
        elif found in "}]":
            depth -= 1
        elif found.endswith(("NaN", "Infinity")) and found[0] != '"':
            return _at(text, token.start(), ProblemCode.NOT_JSON, f"JSON has no {found}")
        elif found[0] in "-0123456789" and len(found) > NUMBER_CHARACTERS:
            message = f"A number has at most {NUMBER_CHARACTERS} characters"
            return _at(text, token.start(), ProblemCode.NOT_JSON, message)
    return None


def _duplicate_keys(text: str) -> Iterator[Problem]:
    """Keys that an object of a valid JSON text has twice: a parser keeps the last and forgets the others."""
    # Of every object and list around the token: the keys so far, none for a list, and the present key or index.
    around: list[tuple[set[str], list[str | int]]] = []
    for token in TOKEN.finditer(text):
        found = token[0]
        if found in "{[":
            around.append((set(), ["" if found == "{" else 0]))
        elif found in "}]":
            around.pop()
        elif found == ",":
            step = around[-1][1]
            step[0] = step[0] + 1 if isinstance(step[0], int) else ""
        elif found[0] == '"' and COLON.match(text, token.end()):
            keys, step = around[-1]
            step[0] = key = json.loads(found)
            if key in keys:
                message = f"{shown(key)} is there twice, and only the last would count; give it once"
                path = _path([each[0] for _, each in around])
                yield _at(text, token.start(), ProblemCode.DUPLICATE_KEY, message, path)
            keys.add(key)


def _path(steps: Sequence[str | int]) -> str:
    path = ""
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else below(path, step)
    return path


def _unusable(document: dict[str, Any], longest: int) -> Iterator[Problem]:
    """What an object may not hold anywhere. Ends with the first problem of size or depth."""
    size = 0
    left: list[tuple[Any, str, int]] = [(document, "", 1)]
    while left:
        value, path, depth = left.pop()
        if depth > DEEPEST:
            message = f"The document is nested more than {DEEPEST} levels deep, which no policy is."
            yield Problem(ProblemCode.NOT_JSON, message, path)
            return
        size += _characters(value)
        if size > longest:
            yield _too_long(f"more than {longest}", longest)
            return
        yield from _unusable_value(value, path)
        if isinstance(value, dict):
            left.extend((each, below(path, key), depth + 1) for key, each in reversed(value.items()))
        elif isinstance(value, list):
            left.extend((each, f"{path}[{i}]", depth + 1) for i, each in reversed([*enumerate(value)]))


def _characters(value: object) -> int:
    """As many as the text of the value has at least, without what its members have by themselves."""
    if isinstance(value, dict):
        return 2 * len(value) + sum(map(len, value))
    return 2 * len(value) if isinstance(value, list) else len(value) if isinstance(value, str) else 0


def _unusable_value(value: object, path: str) -> Iterator[Problem]:
    for text in value if isinstance(value, dict) else (value,):
        found = UNUSABLE.search(text) if isinstance(text, str) else None
        if found:
            message = f"The character U+{ord(found[0]):04X} cannot be in a policy; remove it."
            yield Problem(ProblemCode.NOT_JSON, message, path)
    if isinstance(value, float) and not math.isfinite(value):
        yield Problem(ProblemCode.NOT_JSON, "A number is finite.", path)
    elif isinstance(value, int) and abs(value) >= 10**NUMBER_CHARACTERS:
        yield Problem(ProblemCode.NOT_JSON, f"A number has at most {NUMBER_CHARACTERS} characters.", path)
    elif not isinstance(value, dict | list | str | int | float | None):
        yield Problem(ProblemCode.WRONG_TYPE, f"A {type(value).__name__} is nothing that JSON has.", path)


def _too_long(length: str, longest: int) -> Problem:
    message = f"The document has {length} characters; it is read only up to {longest}. Make it shorter."
    return Problem(ProblemCode.TOO_LONG, message)


def _at(text: str, position: int, code: ProblemCode, message: str, path: str = "") -> Problem:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return Problem(code, f"{message} (line {line}, column {column}).", path, line, column)
