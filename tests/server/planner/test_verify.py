"""A mapping that does not fit the tables is told when the schema is built."""

from typing import Annotated, Any

import pytest
import strawberry

from server.accounts import models
from server.accounts.types import Tag
from server.graphql.scalars import SCALARS
from server.planner import install
from server.planner.kinds import Through
from server.planner.mapping import column, elements, embedded, matches, one_of_types, table, to_many, to_one
from server.planner.verify import MappingError
from server.policies.types import Policy
from server.tenancies.types import Tenancy


@strawberry.type
class Inner:
    kind: str
    id: strawberry.ID = column("id", node="tok")


Either = Annotated[Tenancy | Policy, strawberry.union("Either")]


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
        (bool, matches(models.Account, "kept", related={}, earlier=""), r"needs the column account.kept,"),
        (bool, matches(models.Account, "name", related={models.Tag: "tags"}, earlier=""), r"the column account.tags,"),
        (Tag | None, to_one(on={"account_id": "id"}, where={"colour": "red"}), r"needs the column tag.colour,"),
        (Tag, to_one(on={"account_id": "id"}), r"never null, but no foreign key that is never null leads to tag"),
        (
            list[Tag],
            to_many(through=Through("tagging", {}), on={}, order=()),
            r"the table tagging, which does not exist",
        ),
        (
            list[Policy],
            to_many(through=Through("policy_attachment", {"account": "id"}), on={"id": "policy_id"}, order=("name",)),
            r"needs the column policy_attachment.account,",
        ),
        (
            list[Policy],
            to_many(through=Through("policy_attachment", {"account_id": "id"}), on={"id": "policy"}, order=("name",)),
            r"needs the column policy_attachment.policy,",
        ),
        (Either, one_of_types({Tenancy: {"id": "tenancy"}}), r"needs the column account.tenancy,"),
        (Either, one_of_types({Policy: {"id": "id"}}), r"never null, but no foreign key .* leads to policy"),
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
