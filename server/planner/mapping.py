"""How a GraphQL type lies in the database, declared beside its fields.

    @strawberry.type
    @table(models.Account, node="acc")
    class Account(Node):
        name: str                                                    # the column `name`
        account_type: AccountType = to_one(on={"id": "account_type_id"})
        tags: list[Tag] = to_many(on={"account_id": "id"}, order=("key",))

A field that declares nothing is the column of the same name in snake_case. `on` joins the target's columns (left) to
the columns of the row that holds the field (right). SQL given here is source code: it is formatted with the row's alias
as `{row}` and with a placeholder as `{value}`, and never with anything from a request.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy
import strawberry
from strawberry.annotation import StrawberryAnnotation
from strawberry.types.arguments import StrawberryArgument

from server.database import Base
from server.identity.models import Role
from server.planner.kinds import (
    MAPPING,
    REQUIRES,
    ByNodeId,
    Column,
    Computed,
    Condition,
    Elements,
    Embedded,
    Having,
    Mapped,
    Matches,
    On,
    OneOfTypes,
    Pages,
    Snapshot,
    SortKey,
    Source,
    Through,
    ToMany,
    ToOne,
)

T = TypeVar("T")


def table(model: type[Base], *, node: str | None = None, tenancy: str | None = "tenancy_id") -> Callable[[T], T]:
    """Class decorator: the type's rows are those of `model`; `node` is the prefix of its ids."""

    def decorate(cls: T) -> T:
        source = _table(model)
        assert tenancy is None or tenancy in source.c, f"{source.name} has no column {tenancy}"
        cls.__source__ = Source(source, tenancy, node)  # type: ignore[attr-defined]
        return cls

    return decorate


def column(
    name: str, *, node: str | None = None, graphql_name: str | None = None, description: str | None = None
) -> Any:
    """A column of another name, or one that holds the id of another type's row."""
    return _field(Column(name, node), description, name=graphql_name)


def computed(sql: str, *, description: str | None = None) -> Any:
    """A scalar that SQL over `{row}` yields, of the SQL type that belongs to the field's."""
    return _field(Computed(sql), description)


def embedded(prefix: str, *, when: str | None = None, description: str | None = None) -> Any:
    """An object whose columns begin with `prefix` in the same row; null when its column `when` is."""
    return _field(Embedded(prefix, when), description)


def elements(column: str, *, description: str | None = None) -> Any:
    """The objects of a jsonb array, each with a member for every column of the target."""
    return _field(Elements(column), description)


def snapshot(column: str, *, description: str | None = None) -> Any:
    """The target's row as it was when it was kept in a jsonb column; its relations are those of today."""
    return _field(Snapshot(column), description)


def matches(
    model: type[Base],
    column: str,
    *,
    related: Mapping[type[Base], str],
    earlier: str,
    description: str | None = None,
) -> Any:
    """Whether the row of the model that is kept in a jsonb column meets the `filter` of a list of changes.

    The list tells a row when this is so or was so in the row before, which `earlier` finds; see `Matches`.
    """
    kept = {_table(each): name for each, name in related.items()}
    return _field(Matches(_table(model), column, kept, earlier), description)


def to_one(
    *,
    on: On | None = None,
    where: On | None = None,
    order: tuple[str, ...] = (),
    kept: str | None = None,
    description: str | None = None,
) -> Any:
    """The first related row by `order`, or null; `where` compares columns with constants.

    `kept` is SQL over `{row}` of the jsonb that has kept the related row, to be shown when that is gone.
    """
    return _field(ToOne(on or {}, where or {}, order, kept=kept), description)


def to_many(
    *,
    on: On | None = None,
    where: On | None = None,
    order: tuple[str, ...],
    through: Through | None = None,
    description: str | None = None,
) -> Any:
    """All related rows by `order`; for lists that stay short. `where` compares columns with constants."""
    return _field(ToMany(on or {}, where or {}, order, through), description)


def one_of_types(on: Mapping[Any, On], *, description: str | None = None) -> Any:
    """A union: the related row of the first type that has one. A type given last may be related to every row."""
    return _field(OneOfTypes({type_.__name__: each for type_, each in on.items()}), description)


def viewers(*, on: On | None = None, description: str | None = None) -> Any:
    """A root field: the one row of the viewer's tenancy, or the one whose columns equal attributes of the viewer."""
    return _field(ToOne(viewer=on or {}), description)


def lookup(by: Any, *, description: str | None = None) -> Any:
    """A root field: the row that meets the one condition given in the @oneOf input `by`."""
    argument = _argument("by", by, "Exactly one of its fields.")
    return _field(ToOne(by="by"), description, arguments=[argument])


def by_node_id(parse: Callable[[str], tuple[str, UUID]], *, description: str | None = None) -> Any:
    """A root field: the row of whatever type an id names."""
    return _field(ByNodeId(parse), description, arguments=[_argument("id", strawberry.ID, "The id of any Node.")])


def connection(
    keys: Mapping[Any, SortKey],
    *,
    default: tuple[str, bool],
    on: On | None = None,
    where: str | None = None,
    filter: Any = None,
    order_by: Any = None,
    counters: Mapping[frozenset[str], str] | None = None,
    description: str | None = None,
) -> Any:
    """Pages of rows. `default` is the name of a key and whether it ascends; `filter` and `order_by` are input types.

    `where` is SQL over `{row}` that holds of every row listed; counters are asked without regard to it.

    `counters` spare counting: SQL of the number of rows, by the fields of `filter` that are given for it to hold. It
    is formatted with the alias of the row that holds the field as `{parent}`, the viewer's tenancy as `{tenancy}`, and
    the value of a field of the filter under the field's name.
    """
    arguments = [
        _argument("first", int | None, "How many, from the start or after `after`: 1 to 100; 50 when absent."),
        _argument("after", str | None, "Only what follows this cursor."),
        _argument(
            "last", int | None, "How many, from the end or before `before`: 1 to 100. Not together with `first`."
        ),
        _argument("before", str | None, "Only what precedes this cursor; alone, the 50 just before it."),
    ]
    if filter is not None:
        arguments.append(
            _argument("filter", filter | None, "Every field given must hold; an empty list restricts nothing.")
        )
    if order_by is not None:
        arguments.append(_argument("order_by", order_by | None, None))
    return _field(Pages(keys, default, on or {}, where, counters or {}), description, arguments=arguments)


def condition(
    sql: str,
    type_: str,
    *,
    convert: Callable[[Any], object] = lambda value: value,
    required: bool = False,
    description: str | None = None,
) -> Any:
    """A field of a filter or of a lookup: SQL over `{row}` and the value, `{value}`, of the SQL type `type_`."""
    return _input(Condition(sql, type_, convert), description, required=required)


def any_of(
    column: str, *, convert: Callable[[Any], object] = str, type_: str = "text", description: str | None = None
) -> Any:
    """A list in a filter: the column equals one of its values."""
    return condition(
        f"{{row}}.{quote(column)} = any({{value}})",
        f"{type_}[]",
        convert=lambda values: [convert(value) for value in values],
        description=description,
    )


def contains(*columns: str, description: str | None = None) -> Any:
    """Text that one of the columns contains, whatever the case."""
    matches = " or ".join(f"{{row}}.{quote(column)} ilike {{value}}" for column in columns)
    return condition(matches, "text", convert=lambda text: f"%{_escape_like(text)}%", description=description)


def having(model: type[Base], *, on: On, description: str | None = None) -> Any:
    """A list of objects in a filter: each is met by a related row. The fields of the object are conditions."""
    return _input(Having(_table(model), on), description)


def requires(role: Role, declared: Any) -> Any:
    """A field that only viewers with the role or a higher one may select."""
    declared.metadata = {**declared.metadata, REQUIRES: role}
    return declared


def _escape_like(text: str) -> str:
    return re.sub(r"([\\\\%_])", r"\\\1", text)


def quote(identifier: str) -> str:
    """An identifier of the mapping, quoted."""
    assert '"' not in identifier
    return f'"{identifier}"'


def _table(model: type[Base]) -> sqlalchemy.Table:
    found = sqlalchemy.inspect(model).local_table
    assert isinstance(found, sqlalchemy.Table)
    return found


def _input(restricts: Condition | Having, description: str | None, *, required: bool = False) -> Any:
    default = {} if required else {"default": strawberry.UNSET}
    return strawberry.field(description=description, metadata={MAPPING: restricts}, **default)


def _argument(name: str, annotation: Any, description: str | None) -> StrawberryArgument:
    return StrawberryArgument(name, None, StrawberryAnnotation(annotation), description=description)


def _field(
    mapped: Mapped,
    description: str | None,
    *,
    name: str | None = None,
    arguments: Sequence[StrawberryArgument] = (),
) -> Any:
    declared: Any = strawberry.field(name=name, description=description, metadata={MAPPING: mapped})
    declared.arguments = list(arguments)
    return declared
