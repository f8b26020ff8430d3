"""Whether the mapping fits the tables, told when the schema is built rather than by the first query that uses it."""

import sqlalchemy
from graphql import GraphQLObjectType, GraphQLSchema, get_named_type, is_non_null_type, is_object_type

from server.planner.mapping import Column, Elements, Embedded, Pages, Related, Snapshot
from server.planner.rows import mapping_of, source_of, source_or_none


class MappingError(TypeError):
    """A field is declared to lie where it cannot; the message names the field and the column."""


def verify(schema: GraphQLSchema) -> None:
    """Raises MappingError for a column that does not exist, or that may be null where the schema says otherwise."""
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
                case Related() | Pages() as mapped:
                    self._related(mapped, field.type, where)

    def _related(self, mapped: Related | Pages, type_: object, where: str) -> None:
        node = get_named_type(type_)  # type: ignore[call-overload]
        if isinstance(mapped, Pages):
            node = get_named_type(node.fields["nodes"].type)
        target = _Check(node, source_of(node).table)
        for theirs, ours in mapped.on.items():
            target._column(theirs, where)
            self._column(ours, where)
        if isinstance(mapped, Related):
            for column in (*mapped.where, *(name.removeprefix("-") for name in mapped.order)):
                target._column(column, where)

    def _column(self, name: str, where: str) -> "sqlalchemy.Column[object]":
        found = self.table.c.get(self.prefix + name)
        if found is None:
            raise MappingError(
                f"{where} needs the column {self.table.name}.{self.prefix + name}, which does not exist."
            )
        return found
