"""Reading for resolvers: the selection below a field, as plain dicts and lists by response key.

A schema prepared with `install` needs no resolvers for what is read: fields of the query type are read by their
mapping, one statement each, and every other field is found in its parent's dict under its response key.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import strawberry
from graphql import (
    GraphQLError,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    get_named_type,
    is_abstract_type,
    is_object_type,
)

from server.context import Context
from server.errors import UserErrorCode
from server.planner import json_text, lists
from server.planner.compiler import TYPE_KEY, Compiler
from server.planner.json_text import JsonObject
from server.planner.kinds import MAPPING, Column, Computed
from server.planner.lists import ListPlan
from server.planner.rows import Row, Selected, Unmapped, mapping_of, source_or_none
from server.planner.selection import Operation
from server.planner.statement import Statement, TooLarge
from server.planner.verify import verify

T = TypeVar("T")


class ByKey(dict[str, Any]):
    """The value of a field for each of its response keys in the selection; the default resolver picks the right one."""


async def read_payload(info: strawberry.Info[Any, Any], payload: Callable[..., T], **ids: UUID | None) -> T:
    """A mutation's payload with its objects read by their keys, in one statement, and no user errors.

    `ids` are the payload's fields by their Python names; one that is None, or is not selected, is not read.
    """
    raw = info._raw_info
    compiler, statement = _payload_statement(raw, ids)
    objects = await _fetch(raw.context, compiler, statement)
    return payload(**{name: ByKey(objects[name]) if name in objects else None for name in ids}, user_errors=[])


async def read_each(
    info: strawberry.Info[Any, Any],
    path: tuple[str, str],
    keys: Sequence[UUID],
    elements: Callable[[Mapping[UUID, Any]], list[Any]],
) -> Any:
    """The value of a payload's list; `path` is its Python name and that of the field of its elements that is read.

    `elements` makes the list from the values of that field, by the keys of their rows. They are read in one statement.
    """
    raw = info._raw_info
    compiler, selected = _begin(raw)
    query = compiler.along(selected, path, lambda found: _by_id(compiler, found, keys))
    lists = await _fetch(raw.context, compiler, _statement(compiler, query))
    # A list that is selected twice may differ in what is below it.
    return ByKey({name: elements(_by_row(keys, fields)) for name, fields in lists.items()})


def _by_row(keys: Sequence[UUID], fields: Mapping[str, Mapping[str, object]]) -> dict[UUID, ByKey]:
    return {key: ByKey({name: objects.get(str(key)) for name, objects in fields.items()}) for key in keys}


def _by_id(compiler: Compiler, selected: Selected, keys: Sequence[UUID]) -> str:
    """The query of an object that has the rows with these ids, each under its own."""
    row, joins = compiler.scan(selected.target), list[str]()
    json = compiler.body(selected.target, selected, row, joins)
    wanted = compiler.placeholders.use(compiler.placeholders.given([list(keys)]), 0, "uuid[]")
    rows = compiler.source(row, [f"{row.column('id')} = any({wanted})"], joins)
    members = "string_agg('\"' || element.k || '\":' || element.j, ',')"
    return (
        f"select '{{' || coalesce({members}, '') || '}}' as j"
        f" from (select {row.column('id')}::text as k, {json} as j {rows}) element"
    )


async def read_list(
    info: strawberry.Info[Any, Any], type_: type[T], where: Mapping[str, object], *, after: tuple[str, int], limit: int
) -> list[tuple[int, T | None]]:
    """The selection of the current field for the rows that equal `where` and follow `after`: a column and its value.

    At most `limit` rows in the order of that column, each with its value there, whether it is selected or not. Of a row
    that the field's argument `filter` leaves out there is only that value.
    """
    raw = info._raw_info
    compiler, selected = _begin(raw)
    column, position = after
    rows, _ = lists.rows_after(compiler, selected, _object_type(raw.schema, type_), where, column, [position, limit])
    elements = json_text.array(f"string_agg('[' || element.n || ',' || {json_text.nullable('element.j')} || ']', ',')")
    statement = _statement(compiler, f"select {elements} from ({rows}) element")
    found = await _fetch(raw.context, compiler, statement)
    return [(key, value) for key, value in found]


def plan_list(
    info: strawberry.Info[Any, Any], type_: type, where: Mapping[str, object], *, after: str
) -> ListPlan | None:
    """The same list to be read again and again, as JSON that PostgreSQL builds; `after` is the column.

    None when the ordinary executor has to make the values: there is an error to tell.
    """
    raw = info._raw_info
    context: Context = raw.context
    compiler, selected = Compiler(Operation.of(raw), context.viewer.role, typed=False), _selected(raw)
    try:
        rows, group = lists.rows_after(compiler, selected, _object_type(raw.schema, type_), where, after, [0, 0])
        lines = f"string_agg(element.n || ' ' || coalesce(element.j, ''), chr({ord(lists.SEPARATOR)}))"
        statement = compiler.placeholders.statement(f"(select coalesce({lines}, '') from ({rows}) element)")
    except (Unmapped, TooLarge, GraphQLError):
        return None
    values = statement.bind(context.viewer, compiler.placeholders.answers)
    places = statement.sources.index((group, 0)), statement.sources.index((group, 1))
    return ListPlan(context.viewer.tenancy_id, context.reader, statement.sql, values, places)


async def read_number(
    info: strawberry.Info[Any, Any], type_: type, where: Mapping[str, object], field: str
) -> int | None:
    """A field, by its name in the schema, of the one row whose columns equal `where`; None when there is none."""

    def value(row: Row) -> str:
        match mapping_of(_object_type(info._raw_info.schema, type_).fields[field], field):
            case Column(name):
                return f"({row.column(name)})::text"
            case Computed(sql):
                return f"({sql.format(row=row.alias)})::text"
            case _:
                raise Unmapped(f"{field} is no scalar")

    return await _read_number(info, type_, where, value)


def check_filter(info: strawberry.Info[Any, Any]) -> None:
    """Raise a located GraphQLError for what is wrong with the argument `filter` of a field that `read_list` reads."""
    compiler, selected = _begin(info._raw_info)
    lists.read_restrictions(compiler, selected)


async def read_greatest(
    info: strawberry.Info[Any, Any], type_: type, where: Mapping[str, object], column: str
) -> int | None:
    """The greatest value of a column among the rows that equal `where`; None when there are none."""
    return await _read_number(info, type_, where, lambda row: f"coalesce(max({row.column(column)})::text, 'null')")


async def _read_number(
    info: strawberry.Info[Any, Any], type_: type, where: Mapping[str, object], value: Callable[[Row], str]
) -> int | None:
    raw = info._raw_info
    compiler = _compiler(raw)
    target = _object_type(raw.schema, type_)
    row = compiler.scan(target)
    source = compiler.source(row, compiler.equals(target, where)(row))
    number: int | None = await _fetch(raw.context, compiler, _statement(compiler, f"select {value(row)} {source}"))
    return number


def check_payload(info: strawberry.Info[Any, Any]) -> None:
    """Raise a located GraphQLError for whatever would keep a mutation's payload from being read.

    That is a field the viewer may not select, an argument that is wrong, or more than one statement should read.
    """
    raw = info._raw_info
    compiler, selected = _begin(raw)
    read: dict[str, UUID | None] = {}
    for child in compiler.children(selected.target, selected):
        named = get_named_type(child.field.type)
        if child.python_name and source_or_none(named):
            read[child.python_name] = UUID(int=0)
        elif child.python_name and is_object_type(named):
            _check_elements(compiler, child)
    _payload_statement(raw, read)


def _check_elements(compiler: Compiler, selected: Selected) -> None:
    """The same for the elements of a payload's list."""
    for child in compiler.children(selected.target, selected):
        if child.python_name and source_or_none(get_named_type(child.field.type)):
            _statement(compiler, _by_id(compiler, child, [UUID(int=0)]))


def _payload_statement(raw: GraphQLResolveInfo[Any], ids: Mapping[str, UUID | None]) -> tuple[Compiler, Statement]:
    compiler, selected = _begin(raw)
    json_object = JsonObject()
    for name, key in ids.items():
        if key is not None:

            def query(found: Selected, key: UUID = key) -> str:
                return compiler.one(found.target, found, compiler.equals(found.target, {"id": key}))

            json_object.member(name, f"({compiler.along(selected, (name,), query)})")
    return compiler, _statement(compiler, f"select {json_object.end()} as j")


def install(schema: GraphQLSchema) -> None:
    """Give every field without a resolver of its own the one that reads: see the module.

    Raises MappingError when the mapping does not fit the tables.
    """
    verify(schema)
    for type_ in schema.type_map.values():
        if is_abstract_type(type_):
            type_.resolve_type = _type_of
        if not is_object_type(type_) or type_.name.startswith("__"):
            continue
        if source_or_none(type_) is not None:
            # The values are dicts, which the class check that comes with an interface would refuse.
            type_.is_type_of = None
        for field in type_.fields.values():
            definition = field.extensions.get("strawberry-definition")
            if definition is None or definition.base_resolver is not None:
                continue
            is_root = type_ is schema.query_type and MAPPING in definition.metadata
            field.resolve = _read_root if is_root else _default_resolver(definition.python_name)


async def _read_root(_source: object, info: GraphQLResolveInfo[Any], **_arguments: object) -> Any:
    compiler, selected = _begin(info)
    compiler.permit(selected)
    return await _fetch(info.context, compiler, _statement(compiler, compiler.root(selected)))


def _default_resolver(name: str) -> Callable[..., Any]:
    def resolve(source: Any, info: GraphQLResolveInfo[Any], **_arguments: object) -> Any:
        if type(source) is dict:
            return source[info.path.key]
        value = getattr(source, name)
        return value.get(str(info.path.key)) if type(value) is ByKey else value

    return resolve


def _type_of(value: Any, _info: GraphQLResolveInfo[Any], _type: object) -> str:
    name: str = value[TYPE_KEY]
    return name


def _begin(info: GraphQLResolveInfo[Any]) -> tuple[Compiler, Selected]:
    return _compiler(info), _selected(info)


def _compiler(info: GraphQLResolveInfo[Any]) -> Compiler:
    return Compiler(Operation.of(info), info.context.viewer.role, typed=True)


def _selected(info: GraphQLResolveInfo[Any]) -> Selected:
    return Selected(info.parent_type, info.field_nodes, (str(info.path.key),))


def _object_type(schema: GraphQLSchema, type_: type) -> GraphQLObjectType:
    found = schema.get_type(type_.__strawberry_definition__.name)  # type: ignore[attr-defined]
    assert isinstance(found, GraphQLObjectType), f"{type_.__name__} is not an object type of the schema"
    return found


def _statement(compiler: Compiler, query: str) -> Statement:
    try:
        return compiler.statement(query)
    except TooLarge:
        message = "This asks for more than one statement should read: select fewer fields, or set fewer filters."
        raise GraphQLError(message, extensions={"code": UserErrorCode.VALIDATION.value}) from None


async def _fetch(context: Context, compiler: Compiler, statement: Statement) -> Any:
    values = statement.bind(context.viewer, compiler.placeholders.answers)
    text = await context.reader.fetch(context.viewer.tenancy_id, statement.sql, values)
    assert text is not None, "a statement yields one JSON value"
    return json.loads(text)
