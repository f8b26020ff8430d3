"""Arguments of fields, checked: pages, cursors and conditions. What is selected below a field plays no part."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

from graphql import GraphQLArgument, GraphQLError, GraphQLInputObjectType, Node, get_named_type

from server.errors import UserErrorCode
from server.planner.kinds import MAPPING, Condition, Having, Pages

DEFAULT_PAGE = 50
LARGEST_PAGE = 100
LARGEST_LIST = 100
# Each is a join of its own, and PostgreSQL takes longer over every further one.
MOST_HAVING = 10
CURSOR_VERSION = 1
CURSOR_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class InvalidArgument(ValueError):
    """What is wrong with an argument, for the caller; `field` is its path below the field that takes it."""

    def __init__(self, message: str, *field: str) -> None:
        super().__init__(message)
        self.field = field

    def located(self, node: Node, path: tuple[str, ...]) -> GraphQLError:
        """The error of the response: at `node` of the document, with the response keys to the argument."""
        extensions = {"code": UserErrorCode.VALIDATION.value, "field": [*path, *self.field]}
        return GraphQLError(str(self), node, extensions=extensions)


@dataclass(frozen=True, slots=True)
class Restriction:
    """A condition in force, the name of its field, and the place of its value among those of the whole argument."""

    name: str
    condition: Condition
    value: int


@dataclass(frozen=True, slots=True)
class Existence:
    """A row that must exist, and the conditions that it meets."""

    name: str
    having: Having
    restrictions: tuple[Restriction, ...]


Restrictions: TypeAlias = tuple[Restriction | Existence, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The shape of a page: all that decides its SQL. The values: those of `after`, of `before` and of the conditions.

    The size is part of the shape because PostgreSQL has to know it before it plans: of a limit that is a parameter it
    expects a tenth of the table, and may sort a million rows to find fifty.
    """

    size: int
    order: str
    ascending: bool
    backward: bool
    after: bool
    before: bool
    restrictions: Restrictions


AFTER, BEFORE = 0, 2


def read_page(
    pages: Pages, name: str, arguments: Mapping[str, Any], definitions: Mapping[str, GraphQLArgument]
) -> tuple[Page, list[object]]:
    """The page asked for and its values; `name` tells the cursors of this list from those of another."""
    backward, size = _size(arguments)
    order, ascending = _order(pages, arguments.get("orderBy"))
    values: list[object] = []
    for argument in ("after", "before"):
        cursor = arguments.get(argument)
        expected = [CURSOR_VERSION, name, order, ascending]
        values += (None, None) if cursor is None else _decode_cursor(cursor, argument, expected, pages.keys[order].type)
    restrictions = read_filter(arguments, definitions, values)
    after, before = (arguments.get(argument) is not None for argument in ("after", "before"))
    return Page(size, order, ascending, backward, after, before, restrictions), values


def read_filter(
    arguments: Mapping[str, Any], definitions: Mapping[str, GraphQLArgument], values: list[object]
) -> Restrictions:
    """The conditions of the argument `filter`, none where it is absent; their values are added to `values`."""
    given = arguments.get("filter")
    return read_conditions(given, definitions["filter"], values, "filter") if given else ()


def read_conditions(
    given: Mapping[str, Any], definition: GraphQLArgument, values: list[object], argument: str
) -> Restrictions:
    """The conditions an input object sets; their values are added to `values`."""
    input_type = get_named_type(definition.type)
    assert isinstance(input_type, GraphQLInputObjectType)
    restrictions: list[Restriction | Existence] = []
    for name, value in given.items():
        try:
            restrictions += _restrictions(input_type, name, value, values)
        except ValueError as error:
            raise InvalidArgument(f"`{name}`: {error}", argument, name) from None
    return tuple(restrictions)


def _restrictions(
    input_type: GraphQLInputObjectType, name: str, value: Any, values: list[object]
) -> Iterator[Restriction | Existence]:
    """What a field of an input object restricts, which is nothing when it is null or empty."""
    if value is None or value == []:
        return
    field = input_type.fields[name]
    match field.extensions["strawberry-definition"].metadata[MAPPING]:
        case Condition() as condition:
            _check_length(value, LARGEST_LIST)
            values += checked([condition.convert(value)])
            yield Restriction(name, condition, len(values) - 1)
        case Having() as having:
            _check_length(value, MOST_HAVING)
            element = get_named_type(field.type)
            assert isinstance(element, GraphQLInputObjectType)
            for each in value:
                found = [r for inner, wanted in each.items() for r in _restrictions(element, inner, wanted, values)]
                assert all(isinstance(each, Restriction) for each in found), "conditions nest no deeper"
                yield Existence(name, having, tuple(found))  # type: ignore[arg-type] # asserted above


def checked(values: Iterable[object]) -> list[object]:
    """The values, as PostgreSQL can hold them: raises ValueError for text it cannot."""
    values = list(values)
    for value in values:
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, list):
            checked(value)
    return values


def cursor_prefix(name: str, page: Page) -> str:
    """The fixed beginning of a cursor's JSON; the sort key and the id follow."""
    return json.dumps([CURSOR_VERSION, name, page.order, page.ascending])[:-1]


def _size(arguments: Mapping[str, Any]) -> tuple[bool, int]:
    first, last = arguments.get("first"), arguments.get("last")
    if first is not None and last is not None:
        raise InvalidArgument("Give `first` or `last`, not both.", "last")
    for name, size in (("first", first), ("last", last)):
        if size is not None and not 1 <= size <= LARGEST_PAGE:
            raise InvalidArgument(f"`{name}` must be from 1 to {LARGEST_PAGE}, not {size}.", name)
    if first is None and last is None:
        return arguments.get("before") is not None and arguments.get("after") is None, DEFAULT_PAGE
    return (True, last) if last is not None else (False, first)  # type: ignore[return-value] # one of them is given


def _order(pages: Pages, given: Mapping[str, Any] | None) -> tuple[str, bool]:
    if given is None:
        return pages.default
    return str(given["field"]), str(given["direction"]) == "ASC"


def _decode_cursor(cursor: str, argument: str, expected: list[object], type_: str) -> tuple[object, UUID]:
    try:
        *context, key, id_ = json.loads(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
        if context[:2] != expected[:2]:
            raise InvalidArgument(f"`{argument}` is a cursor of another list; use one from this list.", argument)
        if context != expected:
            raise InvalidArgument(
                f"`{argument}` is a cursor of another order; use one from a page with the same `orderBy`.", argument
            )
        value = datetime.strptime(key, CURSOR_TIME).replace(tzinfo=UTC) if type_ == "timestamptz" else _check_text(key)
        return value, UUID(id_)
    except InvalidArgument:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidArgument(f"`{argument}` is not a cursor; use one from `pageInfo` or `edges`.", argument) from None


def _check_text(value: str) -> str:
    if "\0" in value:
        raise ValueError("A NUL character is not allowed.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("Half of a surrogate pair is not a character.") from None
    return value


def _check_length(value: object, most: int) -> None:
    if isinstance(value, list) and len(value) > most:
        raise ValueError(f"At most {most} values, not {len(value)}.")
