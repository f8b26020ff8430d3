"""GraphQL types of access: groups, users, and who has which role where."""

from datetime import datetime
from enum import StrEnum

import strawberry

from server.access import models
from server.access.models import AccessRole, AccessState
from server.account_types.types import AccountType
from server.graphql.connections import Node, OrderDirection
from server.graphql.ids import decode
from server.graphql.scalars import expose
from server.planner.kinds import SortKey, Through
from server.planner.mapping import column, computed, condition, contains, table, to_many, to_one

expose(
    AccessRole,
    "What the members of a group may do in an account, unless a grant names another policy.",
    ADMIN="Everything: AdministratorAccess.",
    DEVELOPER="Run workloads: job-function/SystemAdministrator.",
    READONLY="Look: ReadOnlyAccess.",
)
expose(
    AccessState,
    "How far access has come in AWS.",
    PENDING="Not in AWS yet, or not as it should be.",
    ACTIVE="As in AWS.",
    REMOVING="Still in AWS; being removed.",
    FAILED="AWS has refused it; `error` says why.",
)

# How far the accounts have come in which there is to be a role of a grant.
_STATE = """
case {row}.target when 'ACCOUNT' then {row}.state else (
    select case when bool_or(state = 'FAILED') then 'FAILED' when bool_or(state = 'PENDING') then 'PENDING'
        else 'ACTIVE' end
    from account_access where tenancy_id = {row}.tenancy_id and account_type_id = {row}.account_type_id
        and group_id = {row}.group_id and role = {row}.role and state <> 'REMOVING'
) end
"""
_APPLIES = """
select apply_to_new_accounts from access_grant where tenancy_id = {row}.tenancy_id
    and account_type_id = {row}.account_type_id and group_id = {row}.group_id and role = {row}.role
"""
_REASON = """
select case
    when {row}.cause = 'GRANTED' then 'Granted on the account type ' || kind.name || ' when the account was in it.'
    when {row}.cause = 'JOINED'
        then 'Granted on the account type ' || kind.name || ', which the account joined later.'
    when {row}.cause = 'REVOKED'
        then 'Was revoked on the account type ' || kind.name || '; the role is being removed.'
    when {row}.cause = 'LEFT'
        then 'The account has left the account type ' || kind.name || '; the role is being removed.'
    when granted.apply_to_new_accounts
        then 'Granted on the account type ' || kind.name || ' and to accounts that join it.'
    else 'Granted on the account type ' || kind.name || ' to the accounts of then, not to those that join it.'
    end
from account_type kind left join access_grant granted
    on granted.account_type_id = kind.id and granted.group_id = {row}.group_id and granted.role = {row}.role
where kind.tenancy_id = {row}.tenancy_id and kind.id = {row}.account_type_id
"""


@strawberry.type(description="People who have the same access.")
@table(models.Group, node="grp")
class Group(Node):
    name: str = strawberry.field(description="Unique in the tenancy, whatever the case.")
    members: list["User"] = to_many(
        through=Through("group_membership", {"group_id": "id"}),
        on={"id": "user_id"},
        order=("name", "id"),
        description="By name.",
    )
    access: list["AccessGrant"] = to_many(
        on={"group_id": "id"},
        where={"target": "ACCOUNT_TYPE"},
        order=("account_type_id", "role"),
        description="Its roles on account types, the oldest type first.",
    )
    created_at: datetime


@strawberry.type(description="A person. People sign in with their organization's identity provider, by their e-mail.")
@table(models.User, node="usr")
class User(Node):
    name: str
    email: str = strawberry.field(description="Unique in the tenancy, whatever the case.")
    groups: list[Group] = to_many(
        through=Through("group_membership", {"user_id": "id"}),
        on={"id": "group_id"},
        order=("name",),
        description="By name.",
    )
    created_at: datetime


@strawberry.type(
    description="A group's role on an account type or, as part of an account, in that account, where it is an IAM role."
)
@table(models.Access)
class AccessGrant:
    group: Group = to_one(on={"id": "group_id"})
    role: AccessRole
    account_type: AccountType = to_one(on={"id": "account_type_id"}, description="On which it was granted.")
    managed_policy_arn: str = column(
        "managed_policy_arn",
        description="What the role may do; `{account}` in it stands for the number of each account.",
    )
    role_name: str = computed(
        "'freehold-' || lower({row}.role) || '-' || {row}.group_slug",
        description="Of the IAM role, whose path is /freehold/; the same in every account.",
    )
    apply_to_new_accounts: bool | None = computed(
        _APPLIES, description="Whether accounts that join the account type get it; null once it is revoked."
    )
    state: AccessState = computed(
        _STATE, description="Of a grant on an account type: FAILED if it is in one of its accounts, else PENDING if so."
    )
    reason: str = computed(_REASON, description="How the group came by the role, or why it loses it.")
    error: str | None = strawberry.field(description="Why AWS has refused the role in this account, and what to do.")


@strawberry.input(one_of=True, description="Which group.")
class GroupBy:
    id: strawberry.ID | None = condition("{row}.id = {value}", "uuid", convert=lambda value: decode(value, "grp"))
    name: str | None = condition("lower({row}.name) = lower({value})", "text", description="Whatever the case.")


@strawberry.input
class GroupFilter:
    search: str | None = contains("name", description="Part of the name, whatever the case.")


class GroupOrderField(StrEnum):
    NAME = "NAME"
    CREATED_AT = "CREATED_AT"


expose(GroupOrderField, "What groups are ordered by.", NAME="The name, whatever the case.")


@strawberry.input
class GroupOrder:
    field: GroupOrderField
    direction: OrderDirection


GROUP_ORDERS = {
    GroupOrderField.NAME: SortKey("lower({row}.name)", "text"),
    GroupOrderField.CREATED_AT: SortKey("{row}.created_at", "timestamptz"),
}


@strawberry.input(one_of=True, description="Which user.")
class UserBy:
    id: strawberry.ID | None = condition("{row}.id = {value}", "uuid", convert=lambda value: decode(value, "usr"))
    email: str | None = condition("lower({row}.email) = lower({value})", "text", description="Whatever the case.")


@strawberry.input
class UserFilter:
    search: str | None = contains("name", "email", description="Part of the name or e-mail, whatever the case.")


class UserOrderField(StrEnum):
    NAME = "NAME"
    CREATED_AT = "CREATED_AT"


expose(UserOrderField, "What users are ordered by.", NAME="The name, whatever the case.")


@strawberry.input
class UserOrder:
    field: UserOrderField
    direction: OrderDirection


USER_ORDERS = {
    UserOrderField.NAME: SortKey("lower({row}.name)", "text"),
    UserOrderField.CREATED_AT: SortKey("{row}.created_at", "timestamptz"),
}
