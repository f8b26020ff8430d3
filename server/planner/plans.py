"""Plans of operations: from a document and a request's variables to one statement with its values, compiled once.

What decides the SQL is asked in a fixed order: the viewer's role and the variables of @skip and @include come first,
then the shape of each field's arguments. A cache key is the answers so far; what is kept under it is either the next
question or the finished statement. So a plan is found by asking, and nothing of a request's values is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cachetools import LRUCache
from graphql import GraphQLError

from server.context import Viewer
from server.planner.compiler import Compiler
from server.planner.rows import Unmapped
from server.planner.selection import Document, Operation
from server.planner.statement import Call, Statement, Values

# In bytes, about. One plan of a page of accounts with all that belongs to them counts for 40,000.
LARGEST_CACHE = 48 * 1024 * 1024
# What an entry takes besides its SQL and its document, and what a character of a document takes once parsed.
_ENTRY, _PARSED_CHARACTER = 2_000, 85

Key: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """The next question, the statement, or None for an operation that the ordinary executor has to run."""

    step: Call | Statement | None
    size: int


class Plans:
    """The plans of one schema, those used last within about `largest` bytes."""

    def __init__(self, *, largest: int = LARGEST_CACHE) -> None:
        self._kept: LRUCache[Key, _Kept] = LRUCache(largest, getsizeof=lambda kept: kept.size)

    @property
    def size(self) -> float:
        """The bytes that the cache is taken to hold."""
        return self._kept.currsize

    def plan(self, document: Document, given: Mapping[str, Any], viewer: Viewer) -> tuple[str, list[object]] | None:
        """SQL and values of the one statement that answers the query for the viewer; `given` are its variables.

        None when the ordinary executor has to answer: the query reads what is not in the database, or there is an error
        to locate.
        """
        variables = document.variables(given)
        if variables is None:
            return None
        key: Key = (document, viewer.role, *map(variables.coerced.get, document.conditions))
        answers: list[Values] = []
        try:
            kept = self._kept.get(key)
            while kept is not None and isinstance(kept.step, Call):
                shape, values = kept.step.evaluate(variables)
                answers.append(values)
                key = (*key, shape)
                kept = self._kept.get(key)
            if kept is None:
                return self._compiled(Operation(document, variables), viewer)
        except GraphQLError:
            return None
        statement = kept.step
        return (statement.sql, statement.bind(viewer, answers)) if isinstance(statement, Statement) else None

    def _compiled(self, operation: Operation, viewer: Viewer) -> tuple[str, list[object]] | None:
        """A plan made anew and kept; raises GraphQLError for what has to be located."""
        document = operation.document
        compiler = Compiler(operation, viewer.role, typed=False)
        key: Key = (document, viewer.role, *map(operation.variables.coerced.get, document.conditions))
        try:
            statement = compiler.response()
        except Unmapped:
            self._keep(key, None, document)
            return None
        for call, shape in compiler.placeholders.calls:
            self._keep(key, call, document)
            key = (*key, shape)
        self._keep(key, statement, document)
        return statement.sql, statement.bind(viewer, compiler.placeholders.answers)

    def _keep(self, key: Key, step: Call | Statement | None, document: Document) -> None:
        size = _ENTRY + _PARSED_CHARACTER * document.length + (len(step.sql) if isinstance(step, Statement) else 0)
        if size <= self._kept.maxsize:
            self._kept[key] = _Kept(step, size)
