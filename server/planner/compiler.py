"""From a selection to one SQL statement in which PostgreSQL builds the response's JSON.

Every relation is a query of one text value `j`, joined laterally to the row that holds it. Identifiers and SQL come
from the mapping alone; whatever a request brings is a bound value.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy
from graphql import GraphQLError, GraphQLObjectType, get_named_type, is_interface_type, is_non_null_type
from sqlalchemy.dialects import postgresql

from server.errors import UserErrorCode
from server.identity.models import Role
from server.planner import json_text, pages
from server.planner.arguments import Existence, InvalidArgument, Restriction, Restrictions, checked, read_conditions
from server.planner.json_text import JsonObject, JsonText
from server.planner.kinds import (
    ByNodeId,
    Column,
    Computed,
    Elements,
    Embedded,
    Mapped,
    Matches,
    OneOfTypes,
    Pages,
    Related,
    Snapshot,
    Source,
    ToMany,
    ToOne,
)
from server.planner.mapping import quote
from server.planner.rows import NO_ROW, Row, Selected, Unmapped, column_json, mapping_of, source_of
from server.planner.selection import Fields, Operation
from server.planner.statement import Call, Placeholders, Statement

# Under this key, which no response key can equal, an object of an abstract type says which type it is of.
TYPE_KEY = ":type"

# So many related rows that a filter asks for are joined in whatever order is best, which PostgreSQL takes exponentially
# longer to find for each; further ones are looked up for the rows that are left.
MOST_JOINED = 2

Where: TypeAlias = Callable[[Row], list[str]]

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_ELEMENT_TYPES = {"Int": "integer", "Boolean": "boolean"}


class Compiler:
    """Compiles within one operation for viewers of one role; one compiler makes one statement.

    `typed` is for the ordinary executor, which completes what the statement returns: objects of abstract types say
    under TYPE_KEY which they are. Without it the JSON is the client's.
    """

    def __init__(self, operation: Operation, role: Role, *, typed: bool) -> None:
        self.operation = operation
        self.placeholders = Placeholders()
        self._role = role
        self._typed = typed
        self._aliases = 0

    def statement(self, query: str) -> Statement:
        """The statement of a finished query of one JSON text; raises TooLarge."""
        return self.placeholders.statement(f"coalesce(({query}), 'null')")

    def response(self) -> Statement:
        """The statement of the whole response; it returns null where the ordinary executor has an error to tell.

        Raises Unmapped when the operation reads nothing, or something that is not in the database, and TooLarge.
        """
        query_type = self.operation.schema.query_type
        assert query_type is not None
        data = JsonObject()
        selected = self._selected(query_type, self.operation.root(query_type), ())
        for child in selected:
            if child.name == "__typename":
                data.fixed(child.key, f'"{query_type.name}"')
            elif child.name in query_type.fields:
                data.member(child.key, self._nullable(child, f"({self.root(child)})"))
            else:
                raise Unmapped("introspection")
        if all(child.name == "__typename" for child in selected):
            raise Unmapped("nothing to read")
        return self.placeholders.statement(str(JsonText('{"data":').json(data.end()).text("}")))

    # Queries of one JSON text; no row means null.

    def root(self, selected: Selected) -> str:
        """A field of the query type."""
        return self._query(selected.mapped, selected, NO_ROW)

    def one(self, type_: GraphQLObjectType, selected: Selected, where: Where, order: Sequence[str] = ()) -> str:
        """The first row of a type's table that meets `where`."""
        row = self.scan(type_)
        joins: list[str] = []
        json = self.body(type_, selected, row, joins)
        return f"select {json} as j {self.source(row, where(row), joins)} {_order(order, row)} limit 1"

    def along(self, selected: Selected, path: Sequence[str], query: Callable[[Selected], str]) -> str:
        """`query` for every occurrence of the field at `path`, in Python names, in objects by response key."""
        if not path:
            return query(selected)
        json = JsonObject()
        for child in self.children(selected.target, selected):
            if child.python_name == path[0]:
                json.member(child.key, json_text.nullable(f"({self.along(child, path[1:], query)})"))
        return f"select {json.end()} as j"

    def _query(self, mapped: Mapped, selected: Selected, parent: Row) -> str:
        match mapped:
            case ToOne():
                where = self._where(mapped, selected, parent)
                query = self.one(selected.target, selected, where, mapped.order)
                if mapped.kept is not None:
                    kept = self._populated(selected, mapped.kept.format(row=parent.alias))
                    query = f"select coalesce(({query}), ({kept})) as j"
            case ToMany():
                query = self._many(mapped, selected, parent)
            case Pages():
                query = pages.query(self, mapped, selected, parent)
            case OneOfTypes():
                query = self._one_of_types(mapped, selected, parent)
            case Elements():
                query = self._elements(mapped, selected, parent)
            case Snapshot():
                query = self._populated(selected, parent.column(mapped.column))
            case ByNodeId():
                query = self._node(mapped, selected)
            case _:
                raise Unmapped(f"{selected} cannot be read on its own")
        return query

    def _many(self, mapped: ToMany, selected: Selected, parent: Row) -> str:
        row = self.scan(selected.target)
        joins, where = [], []
        if mapped.through is None:
            where = related(mapped, row, parent)
        else:
            link = Row(self.alias())
            conditions = " and ".join([*related(mapped, row, link), f"{link.column('tenancy_id')} = {self.tenancy()}"])
            joins.append(f"join {quote(mapped.through.table)} {link.alias} on {conditions}")
            where = joined(mapped.through.on, link, parent)
        json = self.body(selected.target, selected, row, joins)
        return _array(f"select {json} as j {self.source(row, where, joins)} {_order(mapped.order, row)}")

    def _one_of_types(self, mapped: OneOfTypes, selected: Selected, parent: Row) -> str:
        """The queries of the types in their order; PostgreSQL runs them until one finds a row."""
        queries = []
        for name, on in mapped.on.items():
            type_ = self.operation.schema.get_type(name)
            assert isinstance(type_, GraphQLObjectType)

            def where(row: Row, on: Mapping[str, str] = on) -> list[str]:
                return joined(on, row, parent)

            queries.append(f"({self.one(type_, selected, where)})")
        return f"select coalesce({', '.join(queries)}) as j"

    def _elements(self, mapped: Elements, selected: Selected, parent: Row) -> str:
        row = Row(self.alias(), nullable=True)
        types = {
            _column_of(selected.target, name): _ELEMENT_TYPES.get(get_named_type(field.type).name, "text")
            for name, field in selected.target.fields.items()
        }
        definition = ", ".join(f"{quote(name)} {type_}" for name, type_ in types.items())
        source = (
            f"rows from (jsonb_to_recordset({parent.column(mapped.column)}) as ({definition})) with ordinality"
            f" as {row.alias}({', '.join(map(quote, types))}, ordinality)"
        )
        json = self.body(selected.target, selected, row, [])
        return _array(f"select {json} as j from {source} order by {row.alias}.ordinality")

    def _populated(self, selected: Selected, kept: str) -> str:
        """The row that the jsonb `kept` holds."""
        row = Row(self.alias(), source_of(selected.target), nullable=True)
        assert row.source is not None
        joins: list[str] = []
        json = self.body(selected.target, selected, row, joins)
        return f"select {json} as j {_kept(row, row.source.table, kept, joins)}"

    def _node(self, mapped: ByNodeId, selected: Selected) -> str:
        interface = get_named_type(selected.field.type)
        assert is_interface_type(interface)
        types = {source_of(type_).node: type_ for type_ in self.operation.schema.get_possible_types(interface)}

        def read(arguments: Mapping[str, Any]) -> tuple[str, list[object]]:
            try:
                prefix, key = mapped.parse(arguments["id"])
            except ValueError as error:
                raise InvalidArgument(f"`id`: {error}", "id") from None
            if prefix not in types:
                raise InvalidArgument(f"`id`: {arguments['id']!r} is not the id of a {interface.name}.", "id")
            return prefix, [key]

        prefix, group = self.call(selected, read)
        return self.one(
            types[prefix], selected, lambda row: [f"{row.column('id')} = {self.placeholders.use(group, 0, 'uuid')}"]
        )

    # Rows, their tables and their conditions.

    def alias(self) -> str:
        self._aliases += 1
        return f"t{self._aliases}"

    def scan(self, type_: GraphQLObjectType) -> Row:
        """A new row of the type's table."""
        return Row(self.alias(), source_of(type_))

    def source(self, row: Row, where: Sequence[str], joins: Sequence[str] = ()) -> str:
        """The `from` and `where` of a row's table, which is never read without the viewer's tenancy if it has one."""
        assert row.source is not None
        column = row.source.tenancy
        tenancy = [f"{row.column(column)} = {self.tenancy()}"] if column else []
        conditions = " and ".join([*tenancy, *where]) or "true"
        return f"from {quote(row.source.table.name)} {row.alias} {' '.join(joins)} where {conditions}"

    def tenancy(self) -> str:
        return self.placeholders.viewer("tenancy_id", "uuid")

    def call(
        self, selected: Selected, read: Callable[[Mapping[str, Any]], tuple[Any, list[object]]]
    ) -> tuple[Any, int]:
        """Reads the arguments of a field; returns their shape and the group of their values."""
        call = Call(selected.field, selected.nodes[0], selected.path, read)
        return self.placeholders.called(call, self.operation.variables)

    def equals(self, type_: GraphQLObjectType, values: Mapping[str, object]) -> Where:
        """A condition: each column equals its value."""
        group = self.placeholders.given(checked(values.values()))
        types = [_sql_type(type_, column) for column in values]
        return lambda row: [
            f"{row.column(column)} = {self.placeholders.use(group, place, types[place])}"
            for place, column in enumerate(values)
        ]

    def restricted(self, restrictions: Restrictions, group: int, row: Row) -> list[str]:
        """The conditions of a filter or a lookup on a row."""
        joined_so_far = 0
        conditions = []
        for each in restrictions:
            joined_so_far += isinstance(each, Existence)
            conditions.append(f"({self._restricted(each, group, row, probed=joined_so_far > MOST_JOINED)})")
        return conditions

    def _restricted(self, restriction: Restriction | Existence, group: int, row: Row, *, probed: bool = False) -> str:
        match restriction:
            case Restriction(_, condition, value):
                placeholder = self.placeholders.use(group, value, condition.type)
                return condition.sql.format(row=row.alias, value=placeholder)
            case Existence(_, having, restrictions):
                other = Row(self.alias(), Source(having.table, "tenancy_id", None))
                conditions = self.restricted(restrictions, group, other)
                if having.table in row.related:
                    rows = f"jsonb_populate_recordset(null::{quote(having.table.name)}, {row.related[having.table]})"
                    return f"exists (select from {rows} {other.alias} where {' and '.join(conditions) or 'true'})"
                where = [*joined(having.on, other, row), *conditions]
                # What has an offset stays a query of its own, outside the search for the best order of joins.
                return f"exists (select {self.source(other, where)}{' offset 0' if probed else ''})"

    def matches(self, mapped: Matches, restrictions: Restrictions, group: int, row: Row) -> str:
        """Whether what is kept in a row meets the conditions of a filter; never null."""
        related = {table: row.column(column) for table, column in mapped.related.items()}
        kept = Row(self.alias(), related=related)
        conditions = " and ".join(self.restricted(restrictions, group, kept))
        return f"coalesce((select {conditions} {_kept(kept, mapped.table, row.column(mapped.column))}), false)"

    def matched(self, mapped: Matches, restrictions: Restrictions, group: int, row: Row) -> str:
        """Whether what is kept in the row before met them; never null."""
        earlier = Row(self.alias(), row.source)
        met = self.matches(mapped, restrictions, group, earlier)
        where = [mapped.earlier.format(row=row.alias, earlier=earlier.alias)]
        return f"coalesce((select {met} {self.source(earlier, where)}), false)"

    def _where(self, mapped: ToOne, selected: Selected, parent: Row) -> Where:
        viewers = {column: _sql_type(selected.target, column) for column in mapped.viewer}
        is_looked_up = self._looked_up(mapped.by, selected) if mapped.by else None
        return lambda row: [
            *related(mapped, row, parent),
            *(
                f"{row.column(column)} = {self.placeholders.viewer(mapped.viewer[column], type_)}"
                for column, type_ in viewers.items()
            ),
            *(is_looked_up(row) if is_looked_up else ()),
        ]

    def _looked_up(self, argument: str, selected: Selected) -> Where:
        def read(arguments: Mapping[str, Any]) -> tuple[Restrictions, list[object]]:
            values: list[object] = []
            return read_conditions(arguments[argument], selected.field.args[argument], values, argument), values

        restrictions, group = self.call(selected, read)
        return lambda row: self.restricted(restrictions, group, row)

    # Objects and their fields.

    def children(self, type_: GraphQLObjectType, selected: Selected) -> list[Selected]:
        """The fields selected below a field for a type; raises GraphQLError for one that the viewer may not select."""
        return self._selected(type_, self.operation.below(type_, selected.nodes), selected.path)

    def _selected(self, type_: GraphQLObjectType, fields: Fields, path: tuple[str, ...]) -> list[Selected]:
        found = [Selected(type_, nodes, (*path, key)) for key, nodes in fields.items()]
        for each in found:
            self.permit(each)
        return found

    def permit(self, selected: Selected) -> None:
        """Raises a located GraphQLError for a field that the viewer may not select."""
        required = selected.required
        if required is not None and not self._role.includes(required):
            message = f"`{selected}` needs the role {required} or higher; this API token has the role {self._role}."
            extensions = {"code": UserErrorCode.FORBIDDEN.value, "field": list(selected.path)}
            raise GraphQLError(message, selected.nodes, extensions=extensions)

    def body(self, type_: GraphQLObjectType, selected: Selected, row: Row, joins: list[str]) -> JsonText:
        """The JSON object of a row; what its relations need is added to `joins`."""
        json = JsonObject()
        if self._typed and selected.is_abstract:
            json.fixed(TYPE_KEY, f'"{type_.name}"')
        for child in self.children(type_, selected):
            if child.name == "__typename":
                json.fixed(child.key, f'"{type_.name}"')
            else:
                json.member(child.key, self._field(child, row, joins))
        return json.end()

    def _field(self, selected: Selected, row: Row, joins: list[str]) -> JsonText | str:
        match selected.mapped:
            case Column() as mapped:
                return self._nullable(selected, column_json(mapped, selected, row), row)
            case Computed(sql):
                json = json_text.leaf(f"({sql.format(row=row.alias)})", selected.field.type)
                return self._nullable(selected, json, row)
            case Matches():
                return json_text.leaf(row.matches, selected.field.type)
            case Embedded(prefix, when):
                embedded = Row(row.alias, None, row.prefix + prefix, row.nullable or when is not None)
                json = self.body(selected.target, selected, embedded, joins)
                return f"case when {embedded.column(when)} is null then 'null' else {json} end" if when else json
            case mapped:
                alias = self.alias()
                joins.append(f"left join lateral ({self._query(mapped, selected, row)}) {alias} on true")
                return self._nullable(selected, f"{alias}.j", row)

    def _nullable(self, selected: Selected, json: JsonText | str, row: Row = NO_ROW) -> JsonText | str:
        """JSON of a field, with null where the field may be null.

        What may not be null is not looked at: the mapping is held to columns and keys that are never null. But what
        lies in a JSON column may be against the schema: the ordinary executor locates that error, so for it there is a
        null, and a whole response fails, to be executed.
        """
        if not is_non_null_type(selected.field.type):
            return json_text.nullable(json)
        if not row.nullable:
            return json
        return json_text.nullable(json) if self._typed else json_text.never_null(json, str(selected))


def _array(rows: str) -> str:
    """The query of an array of the rows' `j`. They come in their order: an ordered aggregate is half as fast."""
    elements = json_text.array("string_agg(element.j, ',')")
    return f"select {elements} as j from ({rows}) element"


def _kept(row: Row, table: sqlalchemy.Table, kept: str, joins: Sequence[str] = ()) -> str:
    """The `from` and `where` of a row of a table that is kept as a jsonb object."""
    record = f"jsonb_populate_record(null::{quote(table.name)}, {kept})"
    return f"from {record} {row.alias} {' '.join(joins)} where jsonb_typeof({kept}) = 'object'"


def joined(on: Mapping[str, str], row: Row, parent: Row) -> list[str]:
    """The conditions that join a row's columns (left) to those of another (right)."""
    return [f"{row.column(theirs)} = {parent.column(ours)}" for theirs, ours in on.items()]


def related(mapped: Related, row: Row, parent: Row) -> list[str]:
    """The conditions that make `row` one of the rows related to `parent`."""
    where = (f"{row.column(name)} = {json_text.literal(value)}" for name, value in mapped.where.items())
    return [*joined(mapped.on, row, parent), *where]


def _order(order: Sequence[str], row: Row) -> str:
    keys = [f"{row.column(name.removeprefix('-'))}{' desc' if name.startswith('-') else ''}" for name in order]
    return f"order by {', '.join(keys)}" if keys else ""


def _sql_type(type_: GraphQLObjectType, column: str) -> str:
    return str(source_of(type_).table.c[column].type.compile(dialect=_DIALECT))


def _column_of(type_: GraphQLObjectType, name: str) -> str:
    mapped = mapping_of(type_.fields[name], f"{type_.name}.{name}")
    assert isinstance(mapped, Column), f"{type_.name}.{name} lies in a JSON array, so it can only be a column"
    return mapped.name
