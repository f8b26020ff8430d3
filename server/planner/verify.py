"""Whether the mapping fits the tables, told when the schema is built rather than by the first query that uses it."""

from typing import Any

import sqlalchemy
from graphql import (
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    get_named_type,
    is_non_null_type,
    is_object_type,
)

from server.planner.kinds import (
    Column,
    Elements,
    Embedded,
    Mapped,
    Matches,
    On,
    OneOfTypes,
    Pages,
    Related,
    Snapshot,
    Through,
    ToMany,
    ToOne,
)
from server.planner.rows import mapping_of, source_of, source_or_none


class MappingError(TypeError):
    """A field is declared to lie where it cannot; the message names the field and the column."""


def verify(schema: GraphQLSchema) -> None:
    """Raises MappingError for a column that does not exist, or that may be null where the schema says otherwise.

    Nor may a relation be null against the schema: it has to follow a foreign key. So a statement cannot yield a null
    that the ordinary executor would report as an error.
    """
    for type_ in schema.type_map.values():
        if is_object_type(type_) and (source := source_or_none(type_)) is not None:
            _Check(type_, source.table).run()


class _Check:
    def __init__(self, type_: GraphQLObjectType, table: sqlalchemy.Table, prefix: str = "", *, null: bool = False):
        self.type = type_
        self.table = table
        self.prefix = prefix
        # Whether the columns are those of an embedded object that may be null as a whole.
        self.null = null

    def run(self) -> None:
        for name, field in self.type.fields.items():
            where = f"{self.type.name}.{name}"
            match mapping_of(field, where):
                case Column(column):
                    found = self._column(column, where)
                    if found.nullable and is_non_null_type(field.type) and not self.null:
                        raise MappingError(f"{where} is never null, but the column {found} may be.")
                case Embedded(prefix, when):
                    embedded = get_named_type(field.type)
                    assert isinstance(embedded, GraphQLObjectType)
                    _Check(embedded, self.table, self.prefix + prefix, null=when is not None).run()
                case Elements(column) | Snapshot(column):
                    self._column(column, where)
                case Matches(_, column, related):
                    for each in (column, *related.values()):
                        self._column(each, where)
                case mapped:
                    self._rows(mapped, field.type, where)

    def _rows(self, mapped: Mapped, type_: GraphQLOutputType, where: str) -> None:
        match mapped:
            case Pages(on=on):
                self._joined(_named(_named(type_).fields["nodes"].type), on, where)
            case ToMany(through=Through() as through):
                self._through(mapped, through, _named(type_), where)
            case Related():
                self._related(mapped, type_, where)
            case OneOfTypes():
                self._one_of_types(mapped, type_, where)

    def _one_of_types(self, mapped: OneOfTypes, type_: GraphQLOutputType, where: str) -> None:
        types = {each.name: each for each in _named(type_).types}
        for name, on in mapped.on.items():
            self._joined(types[name], on, where)
        if is_non_null_type(type_):
            last = list(mapped.on)[-1]
            self._follows_a_key(types[last], mapped.on[last], where)

    def _related(self, mapped: Related, type_: GraphQLOutputType, where: str) -> None:
        target = self._joined(_named(type_), mapped.on, where)
        target._ordered(mapped, where)
        if isinstance(mapped, ToOne) and is_non_null_type(type_):
            self._follows_a_key(target.type, mapped.on, where)

    def _through(self, mapped: ToMany, through: Through, type_: GraphQLObjectType, where: str) -> None:
        link = self.table.metadata.tables.get(through.table)
        if link is None:
            raise MappingError(f"{where} goes through the table {through.table}, which does not exist.")
        between = _Check(type_, link)
        for theirs, ours in through.on.items():
            between._column(theirs, where)
            self._column(ours, where)
        between._column("tenancy_id", where)
        between._joined(type_, mapped.on, where)._ordered(mapped, where)

    def _joined(self, type_: GraphQLObjectType, on: On, where: str) -> "_Check":
        target = _Check(type_, source_of(type_).table)
        for theirs, ours in on.items():
            target._column(theirs, where)
            self._column(ours, where)
        return target

    def _ordered(self, mapped: Related, where: str) -> None:
        for column in (*mapped.where, *(name.removeprefix("-") for name in mapped.order)):
            self._column(column, where)

    def _follows_a_key(self, target: GraphQLObjectType, on: On, where: str) -> None:
        table = source_of(target).table
        for key in self.table.foreign_key_constraints:
            pairs = {(each.column.name, each.parent.name) for each in key.elements}
            if key.referred_table is table and pairs >= set(on.items()) and not any(c.nullable for c in key.columns):
                return
        raise MappingError(f"{where} is never null, but no foreign key that is never null leads to {table.name}.")

    def _column(self, name: str, where: str) -> "sqlalchemy.Column[object]":
        found = self.table.c.get(self.prefix + name)
        if found is None:
            raise MappingError(
                f"{where} needs the column {self.table.name}.{self.prefix + name}, which does not exist."
            )
        return found


def _named(type_: GraphQLOutputType) -> Any:
    """The type inside lists and non-nulls; a mapping that does not fit its kind fails loudly."""
    return get_named_type(type_)
