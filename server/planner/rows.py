"""What the compiler works with: fields of a selection, rows in scope, and their mapping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy
from graphql import FieldNode, GraphQLField, GraphQLNamedType, GraphQLObjectType, get_named_type, is_abstract_type

from server.identity.models import Role
from server.planner import json_text
from server.planner.json_text import JsonText
from server.planner.kinds import MAPPING, REQUIRES, Column, Mapped, Source
from server.planner.mapping import quote


class Unmapped(Exception):
    """The selection holds a field without a place in the database: a fault of the schema, not of a request."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row in scope: its alias, the table it is of, and the prefix of the columns of an embedded object."""

    alias: str
    source: Source | None = None
    prefix: str = ""
    # Whether columns may be null against what the schema says: a row kept as JSON may be older than a column of its
    # table. Without care one null would make the text of the whole object null.
    nullable: bool = False
    # SQL of whether it meets the filter of its list.
    matches: str = "true"
    # SQL of the related rows of a table as one jsonb array, for a row that is kept with them.
    related: Mapping[sqlalchemy.Table, str] = field(default_factory=dict)

    def column(self, name: str) -> str:
        return f"{self.alias}.{quote(self.prefix + name)}"


# The parent of a root field: a row without columns.
NO_ROW = Row("")


@dataclass(frozen=True, slots=True)
class Selected:
    """A field of the selection: the type it belongs to, its nodes, which merge, and its response keys from the root."""

    parent: GraphQLObjectType
    nodes: Sequence[FieldNode]
    path: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.nodes[0].name.value

    @property
    def python_name(self) -> str | None:
        """The name of the field in the class; None for `__typename`."""
        field = self.parent.fields.get(self.name)
        return None if field is None else field.extensions["strawberry-definition"].python_name

    @property
    def key(self) -> str:
        return self.path[-1]

    @property
    def field(self) -> GraphQLField:
        field: GraphQLField = self.parent.fields[self.name]
        return field

    @property
    def target(self) -> GraphQLObjectType:
        named = get_named_type(self.field.type)
        if not isinstance(named, GraphQLObjectType):
            raise Unmapped(f"{self} is not of an object type")
        return named

    @property
    def mapped(self) -> Mapped:
        return mapping_of(self.field, str(self))

    @property
    def required(self) -> Role | None:
        """The role without which the field may not be selected."""
        field = self.parent.fields.get(self.name)
        return None if field is None else field.extensions["strawberry-definition"].metadata.get(REQUIRES)

    @property
    def is_abstract(self) -> bool:
        """Whether it is of an interface or a union."""
        return self.name in self.parent.fields and is_abstract_type(get_named_type(self.field.type))

    def __str__(self) -> str:
        return f"{self.parent.name}.{self.name}"


def mapping_of(field: GraphQLField, name: str) -> Mapped:
    """The declared mapping of a field, or the column of its own name."""
    declared = field.extensions["strawberry-definition"]
    mapped: Mapped | None = declared.metadata.get(MAPPING)
    if mapped is not None:
        return mapped
    if declared.base_resolver is not None:
        raise Unmapped(f"{name} has a resolver of its own, so it cannot be read with its parent")
    return Column(declared.python_name)


def source_or_none(type_: GraphQLNamedType) -> Source | None:
    """The table behind a type, if it has one."""
    definition: Any = type_.extensions.get("strawberry-definition")
    return getattr(getattr(definition, "origin", None), "__source__", None)


def source_of(type_: GraphQLNamedType) -> Source:
    source = source_or_none(type_)
    if source is None:
        raise Unmapped(f"{type_.name} has no table")
    return source


def column_json(mapped: Column, selected: Selected, row: Row) -> JsonText:
    """The JSON of a column, which is null where the column is; that of an id has the prefix of the type it is of."""
    expression = row.column(mapped.name)
    if get_named_type(selected.field.type).name != "ID":
        return json_text.leaf(expression, selected.field.type)
    prefix = mapped.node or (row.source.node if row.source else None)
    if prefix is None:
        raise Unmapped(f"{selected} holds an id; say of which type with `node`")
    return json_text.node_id(expression, prefix)
