"""One SQL statement, and where each of its values comes from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from graphql import FieldNode, GraphQLField
from graphql.execution.values import VariableValues

from server.context import Viewer
from server.planner.arguments import InvalidArgument
from server.planner.selection import arguments, has_variable

# Characters of SQL. PostgreSQL takes some 800 bytes and a microsecond for each while it plans and runs a statement.
LARGEST_STATEMENT = 150_000

Values: TypeAlias = Sequence[object]
# The number of a group of values and a place in it, or an attribute of the viewer.
Source: TypeAlias = tuple[int, int] | str


class TooLarge(Exception):
    """The statement would be longer than PostgreSQL should have to plan."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A field with arguments. `read` checks them and gives their shape, which decides the SQL, and their values."""

    field: GraphQLField
    node: FieldNode
    path: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], tuple[object, list[object]]]

    def evaluate(self, variables: VariableValues) -> tuple[Any, list[object]]:
        """Raises a located GraphQLError for an argument that is not valid."""
        try:
            return self.read(arguments(self.field, self.node, variables))
        except InvalidArgument as error:
            raise error.located(self.node, self.path) from None


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL that returns the UTF-8 bytes of one JSON text in its single row; `sources` are those of its placeholders.

    `groups` holds the values that are the same for every request. The others are None: they are, in this order, the
    values of the calls that a request has to answer.
    """

    sql: str
    sources: tuple[Source, ...]
    groups: tuple[Values | None, ...]

    def bind(self, viewer: Viewer, answers: Sequence[Values]) -> list[object]:
        """The values of the placeholders for a request, given the values of its calls in order."""
        following = iter(answers)
        groups = [next(following) if group is None else group for group in self.groups]
        return [
            getattr(viewer, source) if isinstance(source, str) else groups[source[0]][source[1]]
            for source in self.sources
        ]


@dataclass(slots=True, eq=False)
class Planned:
    """A statement, and the values of the calls of one request."""

    statement: Statement
    answers: Sequence[Values]

    def values(self, viewer: Viewer) -> list[object]:
        """The values of the statement's placeholders for a viewer of the role that it was planned for."""
        return self.statement.bind(viewer, self.answers)


class Placeholders:
    """The values of a statement while it is written. Only what the SQL uses gets a number: PostgreSQL refuses the rest.

    A statement depends on the shapes of `calls`, on the directives of the operation and on the viewer's role, and on
    nothing else of a request: `answers` can be given again by another one.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Call, object]] = []
        self.answers: list[Values] = []
        self._groups: list[Values | None] = []
        self._numbers: dict[Source, int] = {}

    def given(self, values: Values) -> int:
        """Values known beforehand; returns their group."""
        self._groups.append(values)
        return len(self._groups) - 1

    def called(self, call: Call, variables: VariableValues) -> tuple[Any, int]:
        """The arguments of a field; returns their shape and the group of their values."""
        shape, values = call.evaluate(variables)
        if not any(map(has_variable, call.node.arguments or ())):
            return shape, self.given(values)
        self.calls.append((call, shape))
        self.answers.append(values)
        self._groups.append(None)
        return shape, len(self._groups) - 1

    def use(self, group: int, place: int, type_: str) -> str:
        """The placeholder of a value, with its SQL type."""
        return self._number((group, place), type_)

    def viewer(self, attribute: str, type_: str) -> str:
        """The placeholder of an attribute of the viewer."""
        return self._number(attribute, type_)

    def statement(self, expression: str) -> Statement:
        """The finished statement of an expression; raises TooLarge."""
        if len(expression) > LARGEST_STATEMENT:
            raise TooLarge
        return Statement(f"select convert_to({expression}, 'UTF8')", tuple(self._numbers), tuple(self._groups))

    def _number(self, source: Source, type_: str) -> str:
        number = self._numbers.setdefault(source, len(self._numbers) + 1)
        return f"${number}::{type_}"
