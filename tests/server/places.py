"""Where text can stand in the arguments of a field, and a value that has it there."""

from collections.abc import Iterator, Sequence
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLInputField,
    GraphQLInputObjectType,
    get_named_type,
    is_enum_type,
    is_list_type,
    is_non_null_type,
)

TEXTS = ("String", "ID", "JSON")


def texts(definition: GraphQLArgument | GraphQLInputField, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths below an argument that lead to a String, an ID or JSON, which may be text."""
    named = get_named_type(definition.type)
    if isinstance(named, GraphQLInputObjectType):
        for name, field in named.fields.items():
            yield from texts(field, (*path, name))
    elif named.name in TEXTS:
        yield path
    else:
        assert is_enum_type(named) or named.name in ("Int", "Boolean")


def nested(definition: Any, path: Sequence[str], value: object) -> object:
    """A value for a definition with `value` at a path below it, and whatever else it needs."""
    named = get_named_type(definition.type)
    if isinstance(named, GraphQLInputObjectType):
        required = {name: field for name, field in named.fields.items() if is_non_null_type(field.type)}
        if named.extensions["strawberry-definition"].is_one_of and not path:
            path = [next(name for name, field in named.fields.items() if get_named_type(field.type).name in TEXTS)]
            value = "x"
        filled: object = {
            **{name: nested(field, [], "x") for name, field in required.items()},
            **({path[0]: nested(named.fields[path[0]], path[1:], value)} if path else {}),
        }
    elif is_enum_type(named):
        filled = next(iter(named.values))
    else:
        filled = value if named.name in TEXTS else True
    nullable = definition.type.of_type if is_non_null_type(definition.type) else definition.type
    return [filled] if is_list_type(nullable) else filled
