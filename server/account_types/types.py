"""GraphQL types of account types."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import strawberry

from server.account_types import models
from server.graphql.connections import Connection, Node, OrderDirection
from server.graphql.ids import decode
from server.graphql.scalars import expose
from server.planner.mapping import SortKey, Through, condition, connection, contains, table, to_many

if TYPE_CHECKING:
    from server.access.types import AccessGrant
    from server.accounts.types import Account
    from server.policies.types import Policy


@strawberry.type(description="A named group of accounts: one organizational unit in AWS, and the boundary of access.")
@table(models.AccountType, node="typ")
class AccountType(Node):
    name: str
    foundation: bool = strawberry.field(
        description="Holds Freehold's own accounts, so nobody may change what is in it."
    )
    organizational_unit_id: str | None = strawberry.field(description="As in AWS, `ou-...`; null until it exists.")
    accounts: Connection[Annotated["Account", strawberry.lazy("server.accounts.types")]] = connection(
        {"CREATED_AT": SortKey("{row}.created_at", "timestamptz")},
        default=("CREATED_AT", False),
        on={"account_type_id": "id"},
        counters={frozenset(): "{parent}.account_count"},
        description="The accounts of this type, newest first.",
    )
    policies: list[Annotated["Policy", strawberry.lazy("server.policies.types")]] = to_many(
        through=Through("policy_attachment", {"account_type_id": "id"}),
        on={"id": "policy_id"},
        order=("name",),
        description="The policies attached to this type, by name.",
    )
    access: list[Annotated["AccessGrant", strawberry.lazy("server.access.types")]] = to_many(
        on={"account_type_id": "id"},
        where={"target": "ACCOUNT_TYPE"},
        order=("group_name", "role"),
        description="Which groups have which roles in its accounts, by the name of the group.",
    )


@strawberry.input(one_of=True, description="Which account type.")
class AccountTypeBy:
    id: strawberry.ID | None = condition("{row}.id = {value}", "uuid", convert=lambda value: decode(value, "typ"))
    name: str | None = condition("lower({row}.name) = lower({value})", "text", description="Whatever the case.")


@strawberry.input
class AccountTypeFilter:
    foundation: bool | None = condition("{row}.foundation = {value}", "boolean")
    search: str | None = contains("name", description="Part of the name, whatever the case.")


class AccountTypeOrderField(StrEnum):
    NAME = "NAME"
    CREATED_AT = "CREATED_AT"


expose(AccountTypeOrderField, "What account types are ordered by.", NAME="The name, whatever the case.")


@strawberry.input
class AccountTypeOrder:
    field: AccountTypeOrderField
    direction: OrderDirection


ORDERS = {
    AccountTypeOrderField.NAME: SortKey("lower({row}.name)", "text"),
    AccountTypeOrderField.CREATED_AT: SortKey("{row}.created_at", "timestamptz"),
}
