"""The schema as a whole."""

from pathlib import Path

from graphql import GraphQLInterfaceType, GraphQLObjectType

from server.graphql.mutations import QUESTION, permissions
from server.identity.models import Role
from server.schema import schema

SDL = Path(__file__).parent.parent / "schema.graphql"


def test_schema_graphql_is_current() -> None:
    assert SDL.read_text() == schema.as_str() + "\n", "write it anew: uv run freehold schema > schema.graphql"


def test_every_mutation_declares_its_permission() -> None:
    declared = permissions(schema)
    assert {name for name, permission in declared.items() if not isinstance(permission, Role)} == set()
    assert declared


def test_every_mutation_takes_one_input_and_returns_user_errors() -> None:
    assert schema._schema.mutation_type is not None
    for name, field in schema._schema.mutation_type.fields.items():
        assert list(field.args) == ["input"], name
        payload = field.type.of_type
        assert str(payload.fields["userErrors"].type) == "[UserError!]!", name


def test_everything_public_is_described_or_plain() -> None:
    """A type says what it is; its fields may speak for themselves."""
    for name, type_ in schema._schema.type_map.items():
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            plain = name in ("Query", "Mutation", "Subscription") or name.endswith(("Payload", "Edge", "Connection"))
            assert plain or name.startswith("__") or type_.description, name


def test_nothing_is_read_by_a_resolver_of_its_own() -> None:
    """What is read lies in the mapping; resolvers have only mutations, subscriptions and what is worked out."""
    core = schema._schema
    assert core.query_type is not None
    worked_out = {
        f"Query.{name}"
        for name, field in core.query_type.fields.items()
        if QUESTION in field.extensions["strawberry-definition"].metadata
    }
    found = [
        f"{name}.{field}"
        for name, type_ in core.type_map.items()
        if isinstance(type_, GraphQLObjectType) and type_ not in (core.mutation_type, core.subscription_type)
        for field, definition in type_.fields.items()
        if not name.startswith("__") and definition.extensions["strawberry-definition"].base_resolver is not None
    ]
    assert set(found) == worked_out == {"Query.previewPolicy"}
