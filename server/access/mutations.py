"""Mutations of groups, users and access, and of account types where access goes with them."""

from uuid import UUID

import strawberry
from strawberry.types import Info

from server.access import grants, removal, service
from server.access.grants import Grant, Revocation
from server.access.models import AccessRole
from server.access.types import Group, User
from server.account_types.types import AccountType
from server.context import Context
from server.graphql.errors import UserError
from server.graphql.mutations import mutate, mutation, node_id
from server.identity.models import Role
from server.planner import read_payload

GROUP_NAME = "2 to 64 letters, digits, spaces and + - = . _ : / @; unique in the tenancy, whatever the case."
USER_NAME = "1 to 128 characters."
EMAIL = "6 to 254 characters; unique in the tenancy, whatever the case."


@strawberry.input
class CreateGroupInput:
    name: str = strawberry.field(description=GROUP_NAME)


@strawberry.input
class UpdateGroupInput:
    group_id: strawberry.ID
    name: str = strawberry.field(description=f"{GROUP_NAME} The names of its IAM roles stay as they are.")


@strawberry.input
class DeleteGroupInput:
    group_id: strawberry.ID


@strawberry.input
class CreateUserInput:
    name: str = strawberry.field(description=USER_NAME)
    email: str = strawberry.field(description=EMAIL)


@strawberry.input
class UpdateUserInput:
    user_id: strawberry.ID
    name: str | None = strawberry.field(default=None, description=f"{USER_NAME} Absent: unchanged.")
    email: str | None = strawberry.field(default=None, description=f"{EMAIL} Absent: unchanged.")


@strawberry.input
class DeleteUserInput:
    user_id: strawberry.ID


@strawberry.input
class GroupMembersInput:
    group_id: strawberry.ID
    user_ids: list[strawberry.ID] = strawberry.field(description="At most 100 at a time.")


@strawberry.input(description="A role for a group.")
class AccessGrantInput:
    group_id: strawberry.ID
    role: AccessRole
    managed_policy_arn: str | None = strawberry.field(
        default=None,
        description=(
            "A policy of AWS's, `arn:aws:iam::aws:policy/...`, or one that every account has,"
            " `arn:aws:iam::{account}:policy/...`. Absent: AWS's own for the role."
        ),
    )
    apply_to_new_accounts: bool = strawberry.field(
        default=True, description="Whether accounts that join the type later get it too."
    )


@strawberry.input(description="A role to take from a group.")
class AccessRevocationInput:
    group_id: strawberry.ID
    role: AccessRole | None = strawberry.field(default=None, description="Absent: every role it has on the type.")


@strawberry.input
class SetAccountTypeAccessInput:
    account_type_id: strawberry.ID
    grants: list[AccessGrantInput] = strawberry.field(
        default_factory=list,
        description=(
            "At most 100. What is granted already is granted anew: as it says now, and in every account of now. A"
            " group may have several roles."
        ),
    )
    revoke: list[AccessRevocationInput] = strawberry.field(default_factory=list, description="At most 100.")


@strawberry.input
class DeleteAccountTypeInput:
    account_type_id: strawberry.ID


@strawberry.type
class CreateGroupPayload:
    group: Group | None
    user_errors: list[UserError]


@strawberry.type
class UpdateGroupPayload:
    group: Group | None
    user_errors: list[UserError]


@strawberry.type
class DeleteGroupPayload:
    deleted_group_id: strawberry.ID | None
    user_errors: list[UserError]


@strawberry.type
class GroupMembersPayload:
    group: Group | None
    user_errors: list[UserError]


@strawberry.type
class CreateUserPayload:
    user: User | None
    user_errors: list[UserError]


@strawberry.type
class UpdateUserPayload:
    user: User | None
    user_errors: list[UserError]


@strawberry.type
class DeleteUserPayload:
    deleted_user_id: strawberry.ID | None
    user_errors: list[UserError]


@strawberry.type
class SetAccountTypeAccessPayload:
    account_type: AccountType | None
    user_errors: list[UserError]


@strawberry.type
class DeleteAccountTypePayload:
    account_type: AccountType | None = strawberry.field(description="DELETING, or DELETED when it is gone already.")
    user_errors: list[UserError]


@strawberry.type
class AccessMutation:
    @mutation(Role.ADMIN, races=service.RACES, description="Create a group, without members.")
    async def create_group(self, info: Info[Context, None], input: CreateGroupInput) -> CreateGroupPayload:
        created = await mutate(
            info, lambda session: service.create_group(session, info.context.viewer.tenancy_id, input.name)
        )
        return await read_payload(info, CreateGroupPayload, group=created.id)

    @mutation(Role.ADMIN, races=service.RACES, description="Rename a group.")
    async def update_group(self, info: Info[Context, None], input: UpdateGroupInput) -> UpdateGroupPayload:
        group_id = node_id(input.group_id, "grp", "groupId")
        await mutate(
            info, lambda session: service.rename_group(session, info.context.viewer.tenancy_id, group_id, input.name)
        )
        return await read_payload(info, UpdateGroupPayload, group=group_id)

    @mutation(
        Role.ADMIN, description="Delete a group that has no members and no access; GROUP_IN_USE says what it has."
    )
    async def delete_group(self, info: Info[Context, None], input: DeleteGroupInput) -> DeleteGroupPayload:
        group_id = node_id(input.group_id, "grp", "groupId")
        await mutate(info, lambda session: service.delete_group(session, info.context.viewer.tenancy_id, group_id))
        return DeleteGroupPayload(deleted_group_id=input.group_id, user_errors=[])

    @mutation(Role.ADMIN, description="Put users into a group; who is in it already stays.")
    async def add_group_members(self, info: Info[Context, None], input: GroupMembersInput) -> GroupMembersPayload:
        group_id, user_ids = _members(input)
        await mutate(
            info,
            lambda session: service.add_group_members(session, info.context.viewer.tenancy_id, group_id, user_ids),
        )
        return await read_payload(info, GroupMembersPayload, group=group_id)

    @mutation(Role.ADMIN, description="Take users out of a group; who is not in it stays out.")
    async def remove_group_members(self, info: Info[Context, None], input: GroupMembersInput) -> GroupMembersPayload:
        group_id, user_ids = _members(input)
        await mutate(
            info,
            lambda session: service.remove_group_members(session, info.context.viewer.tenancy_id, group_id, user_ids),
        )
        return await read_payload(info, GroupMembersPayload, group=group_id)

    @mutation(Role.ADMIN, races=service.RACES, description="Add a user, in no group.")
    async def create_user(self, info: Info[Context, None], input: CreateUserInput) -> CreateUserPayload:
        created = await mutate(
            info, lambda session: service.create_user(session, info.context.viewer.tenancy_id, input.name, input.email)
        )
        return await read_payload(info, CreateUserPayload, user=created.id)

    @mutation(Role.ADMIN, races=service.RACES, description="Change a user.")
    async def update_user(self, info: Info[Context, None], input: UpdateUserInput) -> UpdateUserPayload:
        user_id = node_id(input.user_id, "usr", "userId")
        await mutate(
            info,
            lambda session: service.update_user(
                session, info.context.viewer.tenancy_id, user_id, input.name, input.email
            ),
        )
        return await read_payload(info, UpdateUserPayload, user=user_id)

    @mutation(Role.ADMIN, description="Delete a user, who leaves every group.")
    async def delete_user(self, info: Info[Context, None], input: DeleteUserInput) -> DeleteUserPayload:
        user_id = node_id(input.user_id, "usr", "userId")
        await mutate(info, lambda session: service.delete_user(session, info.context.viewer.tenancy_id, user_id))
        return DeleteUserPayload(deleted_user_id=input.user_id, user_errors=[])

    @mutation(
        Role.ADMIN,
        description=(
            "Grant groups roles on an account type, or revoke them: IAM roles in every account of the type follow."
            " Accounts that join the type get what it grants, unless `applyToNewAccounts` is false, and"
            " lose it when they leave."
        ),
    )
    async def set_account_type_access(
        self, info: Info[Context, None], input: SetAccountTypeAccessInput
    ) -> SetAccountTypeAccessPayload:
        account_type_id = node_id(input.account_type_id, "typ", "accountTypeId")
        granted = [
            Grant(
                node_id(each.group_id, "grp", "grants", str(index), "groupId"),
                each.role,
                each.managed_policy_arn,
                each.apply_to_new_accounts,
            )
            for index, each in enumerate(input.grants)
        ]
        revoked = [
            Revocation(node_id(each.group_id, "grp", "revoke", str(index), "groupId"), each.role)
            for index, each in enumerate(input.revoke)
        ]
        await mutate(
            info,
            lambda session: grants.set_account_type_access(
                session, info.context.viewer.tenancy_id, account_type_id, granted, revoked
            ),
        )
        return await read_payload(info, SetAccountTypeAccessPayload, account_type=account_type_id)

    @mutation(
        Role.ADMIN,
        description=(
            "Delete an account type that has no accounts; TYPE_IN_USE says how many it has. The roles that it grants"
            " go at once; its organizational unit, and what is attached to that, when AWS has deleted it. One that is"
            " being deleted is tried again at once."
        ),
    )
    async def delete_account_type(
        self, info: Info[Context, None], input: DeleteAccountTypeInput
    ) -> DeleteAccountTypePayload:
        account_type_id = node_id(input.account_type_id, "typ", "accountTypeId")
        await mutate(
            info,
            lambda session: removal.delete_account_type(session, info.context.viewer.tenancy_id, account_type_id),
        )
        return await read_payload(info, DeleteAccountTypePayload, account_type=account_type_id)


def _members(input: GroupMembersInput) -> tuple[UUID, list[UUID]]:
    group_id = node_id(input.group_id, "grp", "groupId")
    return group_id, [node_id(id_, "usr", "userIds", str(index)) for index, id_ in enumerate(input.user_ids)]
