"""GraphQL types of accounts."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import strawberry

from server.account_types.types import AccountType
from server.accounts import models
from server.accounts.models import AccountOrigin, AccountRole, AccountStatus, ActorKind
from server.graphql.connections import Connection, Node, OrderDirection
from server.graphql.ids import decode
from server.graphql.scalars import expose
from server.planner.kinds import SortKey
from server.planner.mapping import (
    any_of,
    column,
    condition,
    connection,
    contains,
    embedded,
    having,
    table,
    to_many,
    to_one,
)

if TYPE_CHECKING:
    from server.access.types import AccessGrant
    from server.assurance.types import AccountSetup
    from server.policies.types import EffectivePolicy

expose(
    AccountRole,
    "What an account is for.",
    MEMBER="A workload's account.",
    SECURITY="Holds the tenancy's security services.",
    LOGGING="Holds the tenancy's logs.",
    MANAGEMENT="The management account of the AWS Organization.",
)
expose(
    AccountOrigin,
    "How an account came under Freehold.",
    CREATED="Freehold created it.",
    ONBOARDED="It existed in the AWS Organization before.",
)
expose(
    AccountStatus,
    "Where an account is in its life.",
    INITIALIZING="Being created and set up.",
    ONBOARDING="Existed before, and is being set up.",
    DISCOVERED="Seen in the AWS Organization, not under Freehold yet.",
    ACTIVE="Every stage of its setup has completed.",
    ERROR="Its first setup has failed; see the stages.",
    CLOSING="AWS is closing it.",
    CLOSED="Closed in AWS, which deletes it 90 days later.",
    SUSPENDED="AWS has suspended it.",
    CANCELLED="Given up before AWS had made it; its name, alias and e-mail are free for another one.",
)
expose(
    ActorKind,
    "What kind of actor did something.",
    API_TOKEN="A program or a person with an API token.",  # noqa: S106 - a kind of actor, no secret
    SYSTEM="Freehold.",
)


@strawberry.type(description="A key and value on an account, inside Freehold unless the tenancy propagates them.")
@table(models.Tag)
class Tag:
    key: str
    value: str


@strawberry.type(description="A value of tags with the same key.")
@table(models.TagKeyValue)
class TagValue:
    value: str
    account_count: int = strawberry.field(description="How many accounts have it, cancelled ones apart.")


@strawberry.type(description="A key of tags that accounts have.")
@table(models.TagKey)
class TagKey:
    key: str
    account_count: int = strawberry.field(description="How many accounts have it, cancelled ones apart.")
    values: Connection[TagValue] = connection(
        {"VALUE": SortKey("{row}.value", "text")},
        default=("VALUE", True),
        on={"key": "key"},
        description="Its values, in their order.",
    )


@strawberry.type(description="Who did something, as they were named then.")
class Actor:
    kind: ActorKind
    name: str
    id: strawberry.ID | None = column(
        "id", node="tok", description="The id of the API token; null for Freehold itself."
    )


@strawberry.type(description="An AWS account of the tenancy.")
@table(models.Account, node="acc")
class Account(Node):
    name: str = strawberry.field(description="Unique in the tenancy, whatever the case, among accounts not cancelled.")
    alias: str | None = strawberry.field(description="The IAM account alias, unique in AWS.")
    email: str = strawberry.field(description="The e-mail address of the root user.")
    aws_account_id: str | None = strawberry.field(description="Twelve digits; null until AWS has created it.")
    role: AccountRole
    origin: AccountOrigin
    status: AccountStatus
    account_type: AccountType = to_one(on={"id": "account_type_id"})
    tags: list[Tag] = to_many(on={"account_id": "id"}, order=("key",), description="By key.")
    setup: Annotated["AccountSetup", strawberry.lazy("server.assurance.types")] | None = to_one(
        on={"account_id": "id"}, order=("-requested_at", "-id"), description="The latest setup."
    )
    setups: Connection[Annotated["AccountSetup", strawberry.lazy("server.assurance.types")]] = connection(
        {"REQUESTED_AT": SortKey("{row}.requested_at", "timestamptz")},
        default=("REQUESTED_AT", False),
        on={"account_id": "id"},
        description="Every setup, latest first.",
    )
    effective_policies: list[Annotated["EffectivePolicy", strawberry.lazy("server.policies.types")]] = to_many(
        on={"account_id": "id"},
        order=("level", "attached_at", "attachment_id"),
        description=(
            "The policies that reach the account: those of the tenancy, of its type, its own; oldest attachment first"
            " in each. None reaches the management account."
        ),
    )
    access: list[Annotated["AccessGrant", strawberry.lazy("server.access.types")]] = to_many(
        on={"account_id": "id"},
        where={"target": "ACCOUNT"},
        order=("group_name", "role"),
        description="Who can reach it, how, and why; by the name of the group.",
    )
    created_at: datetime
    created_by: Actor = embedded("created_by_")
    updated_at: datetime
    last_sequence: int = column(
        "last_seq", description="The number of its last event in `accountSetup` and `accountsChanged`; 0 before any."
    )


@strawberry.input(one_of=True, description="Which account.")
class AccountBy:
    id: strawberry.ID | None = condition("{row}.id = {value}", "uuid", convert=lambda value: decode(value, "acc"))
    aws_account_id: str | None = condition("{row}.aws_account_id = {value}", "text")
    name: str | None = condition(
        "lower({row}.name) = lower({value}) and {row}.status <> 'CANCELLED'",
        "text",
        description="Whatever the case. A cancelled account has given its name up.",
    )


@strawberry.input(description="A tag that accounts must have.")
class TagFilter:
    key: str = condition("{row}.key = {value}", "text", required=True)
    value: str | None = condition("{row}.value = {value}", "text", description="Any value when absent.")


@strawberry.input
class AccountFilter:
    status: list[AccountStatus] | None = any_of("status", description="Any of these.")
    account_type_id: list[strawberry.ID] | None = any_of(
        "account_type_id", type_="uuid", convert=lambda value: decode(value, "typ"), description="Any of these."
    )
    role: list[AccountRole] | None = any_of("role", description="Any of these.")
    tag: list[TagFilter] | None = having(models.Tag, on={"account_id": "id"}, description="All of these, at most 10.")
    search: str | None = contains(
        "name", "email", "alias", "aws_account_id", description="Part of the name, e-mail, alias or AWS account id."
    )


class AccountOrderField(StrEnum):
    NAME = "NAME"
    CREATED_AT = "CREATED_AT"
    UPDATED_AT = "UPDATED_AT"


expose(AccountOrderField, "What accounts are ordered by.", NAME="The name, whatever the case.")


@strawberry.input
class AccountOrder:
    field: AccountOrderField
    direction: OrderDirection


ORDERS = {
    AccountOrderField.NAME: SortKey("lower({row}.name)", "text"),
    AccountOrderField.CREATED_AT: SortKey("{row}.created_at", "timestamptz"),
    AccountOrderField.UPDATED_AT: SortKey("{row}.updated_at", "timestamptz"),
}

TAG_KEY_ORDERS = {"KEY": SortKey("{row}.key", "text")}

# An account type knows how many accounts it has.
_COUNT = "(select coalesce(sum(account_count), 0) from account_type where tenancy_id = {tenancy}"
COUNTERS = {
    frozenset[str](): f"{_COUNT})",
    frozenset({"accountTypeId"}): f"{_COUNT} and id = any({{accountTypeId}}))",
}
