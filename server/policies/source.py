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
TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\],]|NaN|true|false|null|-?Infinity|-?[0-9][0-9.eE+-]*', re.DOTALL)
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


def located(text: str, problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """The problems of a valid JSON text, each with the line and column of its place or of what is around that."""
    wanted = {part for each in problems for part in _parts(each.path)}
    places = {path: position for path, position in _places(text) if path in wanted}

    def locate(problem: Problem) -> Problem:
        position = next((places[part] for part in _parts(problem.path) if part in places), None)
        if position is None or problem.line is not None:
            return problem
        return _at(text, position, problem.code, problem.message.removesuffix("."), problem.path)

    return tuple(map(locate, problems))


def _parts(path: str) -> Iterator[str]:
    """The path, and those of all that is around its place."""
    while path:
        yield path
        path = path[: max(path.rfind("."), path.rfind("["), 0)]


def _places(text: str) -> Iterator[tuple[str, int]]:
    return ((_path(steps), position) for position, steps, _ in _walked(text))


def _duplicate_keys(text: str) -> Iterator[Problem]:
    """Keys that an object of a valid JSON text has twice: a parser keeps the last and forgets the others."""
    for position, steps, is_repeated in _walked(text):
        if is_repeated:
            message = f"{shown(steps[-1])} is there twice, and only the last would count; give it once"
            yield _at(text, position, ProblemCode.DUPLICATE_KEY, message, _path(steps))


def _walked(text: str) -> Iterator[tuple[int, Sequence[str | int], bool]]:
    """Each key of a valid JSON text and each value in a list: where it is, the way to it, whether it is there twice."""
    # Of every object and list around the token: the keys so far, and the present key or index.
    around: list[set[str]] = []
    steps: list[str | int] = []
    for token in TOKEN.finditer(text):
        found = token[0]
        if found in ("}", "]"):
            around.pop()
            steps.pop()
        elif found == ",":
            step = steps[-1]
            steps[-1] = step + 1 if isinstance(step, int) else ""
        elif steps and isinstance(steps[-1], int):
            yield token.start(), steps, False
        elif found[0] == '"' and COLON.match(text, token.end()):
            steps[-1] = key = json.loads(found)
            yield token.start(), steps, key in around[-1]
            around[-1].add(key)
        if found in ("{", "["):
            around.append(set())
            steps.append("" if found == "{" else 0)


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
