"""Lists that are read again and again: one selection of rows that are numbered, a part at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from graphql import GraphQLObjectType

from server.context import Reads
from server.planner.arguments import Restrictions, read_filter
from server.planner.compiler import Compiler
from server.planner.kinds import Matches
from server.planner.rows import Row, Selected, mapping_of

# Between two rows. JSON never holds it: in a text it is escaped.
SEPARATOR = "\x1e"


@dataclass(frozen=True, slots=True, eq=False)
class ListPlan:
    """A statement that reads the rows after a number, and everything that it depends on but that number."""

    tenancy_id: UUID
    reader: Reads
    sql: str
    values: Sequence[object]
    # Where among the values the number stands, and how many rows to read.
    places: tuple[int, int]

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for plans that read the same rows and show the same of them: selections may be spelt in many ways."""
        return self.tenancy_id, self.sql, *map(_hashable, self.values)

    async def read(self, after: int, limit: int) -> list[tuple[int, bytes | None]]:
        """At most `limit` rows after a number, in order: each with its number and its JSON.

        There is no JSON of a row that a filter leaves out.
        """
        values = list(self.values)
        values[self.places[0]], values[self.places[1]] = after, limit
        text = await self.reader.fetch(self.tenancy_id, self.sql, values)
        rows = (line.partition(b" ") for line in text.split(SEPARATOR.encode())) if text else ()
        return [(int(number), json or None) for number, _, json in rows]


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def read_restrictions(compiler: Compiler, selected: Selected) -> tuple[Restrictions, int]:
    """The conditions of a field's argument `filter`, and the group of their values; raises a located GraphQLError."""

    def read(arguments: Mapping[str, Any]) -> tuple[Restrictions, list[object]]:
        values: list[object] = []
        return read_filter(arguments, selected.field.args, values), values

    return compiler.call(selected, read)


def rows_after(
    compiler: Compiler,
    selected: Selected,
    target: GraphQLObjectType,
    where: Mapping[str, object],
    column: str,
    values: list[object],
) -> tuple[str, int]:
    """The query of `n`, a column, and `j`, the selection, of the rows in the order of that column.

    Of the values, the first is what the column is more than, the second how many rows there are at most. Also returns
    the group of the values. A row that the filter leaves out has no `j`, but counts: so a read takes no longer where
    few match, and whoever reads knows how far it has come.
    """
    group = compiler.placeholders.given(values)
    restrictions, given = read_restrictions(compiler, selected)
    row = compiler.scan(target)
    use = compiler.placeholders.use
    conditions = [*compiler.equals(target, where)(row), f"{row.column(column)} > {use(group, 0, 'bigint')}"]
    order = f"order by {row.column(column)} limit {use(group, 1, 'integer')}"
    joins: list[str] = []
    if not restrictions:
        body = compiler.body(target, selected, row, joins)
        source = compiler.source(row, conditions, joins)
        return f"select {row.column(column)}::text as n, {body} as j {source} {order}", group
    mapped = _matches(target)
    matches = compiler.matches(mapped, restrictions, given, row)
    read = f"select {row.alias}.*, {matches} as matches {compiler.source(row, conditions)} {order}"
    alias = compiler.alias()
    change = Row(alias, row.source, matches=f"{alias}.matches")
    is_told = f"{change.matches} or {compiler.matched(mapped, restrictions, given, change)}"
    body = compiler.body(target, selected, change, joins)
    # What has an offset stays a query of its own: nothing is joined to a row that is left out.
    told = f"select {body} as j from (select) one {' '.join(joins)} where {is_told} offset 0"
    number = change.column(column)
    rows = f"({read}) {alias} left join lateral ({told}) told on true"
    return f"select {number}::text as n, told.j from {rows} order by {number}", group


def _matches(target: GraphQLObjectType) -> Matches:
    declared = (mapping_of(field, f"{target.name}.{name}") for name, field in target.fields.items())
    return next(each for each in declared if isinstance(each, Matches))
