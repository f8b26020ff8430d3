"""GraphQL types of account types."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import strawberry

from server.account_types import models
from server.account_types.models import AccountTypeState
from server.graphql.connections import Connection, Node, OrderDirection
from server.graphql.ids import decode
from server.graphql.scalars import expose
from server.leases import StageErrorClass
from server.planner.kinds import SortKey, Through
from server.planner.mapping import column, condition, connection, contains, embedded, table, to_many

if TYPE_CHECKING:
    from server.access.types import AccessGrant
    from server.accounts.types import Account
    from server.policies.types import Policy


expose(
    AccountTypeState,
    "Whether an account type is in use.",
    ACTIVE="Accounts can be of it.",
    DELETING="Being deleted: nothing can be added to it any more. `error` says why, where it has not worked so far.",
    DELETED="Gone: no list has it. Accounts that are no more, and events, may have been of it.",
)


@strawberry.type(description="Why the organizational unit in AWS is not as its account type here.")
class AccountTypeError:
    code: str = strawberry.field(description="AWS's own code where there is one.")
    message: str = strawberry.field(description="What happened, and what to do.")
    class_: StageErrorClass = column("class", graphql_name="class")
    aws_request_id: str | None = strawberry.field(description="What AWS Support asks for.")


@strawberry.type(description="A named group of accounts: one organizational unit in AWS, and the boundary of access.")
@table(models.AccountType, node="typ")
class AccountType(Node):
    name: str
    foundation: bool = strawberry.field(
        description="Holds Freehold's own accounts, so nobody may change what is in it."
    )
    state: AccountTypeState
    error: AccountTypeError | None = embedded("error_", when="code", description="The error of the last attempt.")
    next_attempt_at: datetime | None = strawberry.field(
        description="When the unit in AWS is looked at again; null when it is as it should be, or `error` is lasting."
    )
    organizational_unit_name: str | None = column(
        "aws_name", description="What the unit is called in AWS, where a new name of the type follows within seconds."
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
    name: str | None = condition(
        "lower({row}.name) = lower({value}) and {row}.state <> 'DELETED'",
        "text",
        description="Whatever the case. A deleted type has given its name up.",
    )


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
