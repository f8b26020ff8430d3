"""What a field of a GraphQL type can be in the database; `mapping` has the functions that declare it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

import sqlalchemy

MAPPING = "mapping"
REQUIRES = "requires"

On: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """The table behind a type. `tenancy` is the column every statement compares; None for what all tenancies share."""

    table: sqlalchemy.Table
    tenancy: str | None
    node: str | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the row; `node` is the prefix of the id it holds, where that is not the type's own."""

    name: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """A scalar that SQL over `{row}` yields; it is never null where the field is not."""

    sql: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """An object whose columns lie in the same row and begin with `prefix`; null when its column `when` is."""

    prefix: str
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Elements:
    """The objects of a jsonb array in the column."""

    column: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row of the target's table as it was when it was kept in the jsonb column; null when the column is."""

    column: str


@dataclass(frozen=True, slots=True)
class Matches:
    """Whether the row of `table` that is kept in a jsonb column meets the filter of its list; true without a filter.

    `related` are the jsonb columns that keep rows of other tables as they were then. `earlier` is SQL over `{row}` and
    `{earlier}`, the row in which the same one is kept as it was before.
    """

    table: sqlalchemy.Table
    column: str
    related: Mapping[sqlalchemy.Table, str]
    earlier: str


@dataclass(frozen=True, slots=True)
class Related:
    """Rows of the target's table; a leading `-` in `order` is descending. A to-one is the first of them, or null."""

    on: On = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToOne(Related):
    # Columns compared with an attribute of the viewer.
    viewer: On = field(default_factory=dict)
    # An argument whose input type carries a condition on each field.
    by: str | None = None
    # SQL over `{row}` of the jsonb that has kept the row, for when it is gone.
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class Through:
    """A table between two others; `on` joins its columns (left) to those of the row that holds the field (right)."""

    table: str
    on: On


@dataclass(frozen=True, slots=True)
class ToMany(Related):
    # With a table between, `on` joins the target's columns to those of that table.
    through: Through | None = None


@dataclass(frozen=True, slots=True)
class OneOfTypes:
    """An object of one of several types: the first, in this order, of which there is a related row."""

    on: Mapping[str, On]


@dataclass(frozen=True, slots=True)
class ByNodeId:
    """The row of any type, from the argument `id`; `parse` takes it apart and raises ValueError."""

    parse: Callable[[str], tuple[str, UUID]]


@dataclass(frozen=True, slots=True)
class SortKey:
    """What a list is ordered by, before the id; `type` is `text` or `timestamptz`."""

    sql: str
    type: str


@dataclass(frozen=True, slots=True)
class Pages:
    """A connection: pages of the target's rows, ordered by one of `keys` and then by id."""

    keys: Mapping[Any, SortKey]
    default: tuple[str, bool]
    on: On
    # SQL over `{row}` that holds of every row listed, whatever the filter.
    where: str | None
    # What is counted already, by the names of the conditions in force.
    counters: Mapping[frozenset[str], str]


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What one field of an input restricts: SQL over `{row}` and the value that `convert` makes of the input.

    `convert` raises ValueError with a sentence for the caller.
    """

    sql: str
    type: str
    convert: Callable[[Any], object]


@dataclass(frozen=True, slots=True, eq=False)
class Having:
    """For every object in the input there is a row of `table` that meets the conditions on the object's fields."""

    table: sqlalchemy.Table
    on: On


Mapped: TypeAlias = (
    Column | Computed | Embedded | Elements | Snapshot | Matches | ToOne | ToMany | OneOfTypes | ByNodeId | Pages
)
