"""A mapping that does not fit the tables is told when the schema is built."""

from typing import Any

import pytest
import strawberry

from server.accounts import models
from server.accounts.types import Tag
from server.graphql.scalars import SCALARS
from server.planner import install
from server.planner.mapping import column, elements, embedded, table, to_many, to_one
from server.planner.verify import MappingError


@strawberry.type
class Inner:
    kind: str
    id: strawberry.ID = column("id", node="tok")


def build(annotation: Any, declared: Any = None) -> None:
    """A schema with one field on the table of accounts."""
    body: dict[str, Any] = {"__annotations__": {"some_field": annotation}}
    if declared is not None:
        body["some_field"] = declared
    wrong = strawberry.type(table(models.Account)(type("Wrong", (), body)))
    query = strawberry.type(type("Query", (), {"__annotations__": {"wrong": wrong | None}}))
    schema = strawberry.Schema(query, config=strawberry.schema.config.StrawberryConfig(scalar_map=SCALARS))
    install(schema._schema)


@pytest.mark.parametrize(
    ("annotation", "declared", "message"),
    [
        (str, None, r"Wrong.someField needs the column account.some_field, which does not exist"),
        (str, column("alias"), r"Wrong.someField is never null, but the column account.alias may be"),
        (list[Tag], elements("labels"), r"needs the column account.labels"),
        (list[Tag], to_many(on={"account": "id"}, order=("key",)), r"needs the column tag.account,"),
        (list[Tag], to_many(on={"account_id": "key"}, order=("key",)), r"needs the column account.key,"),
        (list[Tag], to_many(on={"account_id": "id"}, order=("-age",)), r"needs the column tag.age,"),
        (Tag | None, to_one(on={"account_id": "id"}, where={"colour": "red"}), r"needs the column tag.colour,"),
        (Inner, embedded("created_by_"), r"Inner.id is never null, but the column account.created_by_id may be"),
        (Inner, embedded("made_by_"), r"Inner.kind needs the column account.made_by_kind"),
    ],
)
def test_what_does_not_fit(annotation: Any, declared: Any, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        build(annotation, declared)


def test_what_fits() -> None:
    build(str | None, column("alias"))
    build(Inner | None, embedded("created_by_", when="id"))
