"""One SQL statement and where each of its values comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import FieldNode, GraphQLField

from server.planner.arguments import InvalidArgument
from server.planner.selection import Operation


@dataclass(frozen=True, slots=True)
class Call:
    """A field with arguments. `read` checks them and gives their shape, which decides the SQL, and their values."""

    field: GraphQLField
    node: FieldNode
    path: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], tuple[object, list[object]]]

    def evaluate(self, operation: Operation) -> tuple[Any, list[object]]:
        """Raises a located GraphQLError for an argument that is not valid."""
        try:
            return self.read(operation.arguments(self.field, self.node))
        except InvalidArgument as error:
            raise error.located(self.node, self.path) from None


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL that returns the UTF-8 bytes of one JSON value, and the values of its placeholders in order."""

    sql: str
    values: tuple[object, ...]


class Placeholders:
    """The values of a statement while it is written. Only what the SQL uses gets a number: PostgreSQL refuses the rest.

    A statement depends on the shapes of `calls` and on the directives of the operation, and on nothing else of a
    request; the values can be read again for another one.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._values: list[list[object]] = []
        self._numbers: dict[tuple[int, int], int] = {}

    def given(self, values: list[object]) -> int:
        """Values known beforehand; returns their group."""
        self._values.append(values)
        return len(self._values) - 1

    def called(self, call: Call, operation: Operation) -> tuple[Any, int]:
        """The arguments of a field; returns their shape and the group of their values."""
        self.calls.append(call)
        shape, values = call.evaluate(operation)
        return shape, self.given(values)

    def use(self, group: int, position: int, type_: str) -> str:
        """The placeholder of a value, with its SQL type."""
        number = self._numbers.setdefault((group, position), len(self._numbers) + 1)
        return f"${number}::{type_}"

    def statement(self, expression: str) -> Statement:
        values = tuple(self._values[group][position] for group, position in self._numbers)
        return Statement(f"select convert_to({expression}, 'UTF8')", values)
