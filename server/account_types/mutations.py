"""Mutations of account types."""

import strawberry
from strawberry.types import Info

from server.account_types import service
from server.account_types.types import AccountType
from server.context import Context
from server.graphql.errors import UserError
from server.graphql.mutations import mutate, mutation, node_id
from server.identity.models import Role
from server.planner import read_payload

NAME = "2 to 64 letters, digits, spaces and + - = . _ : / @; unique in the tenancy, whatever the case."


@strawberry.input
class CreateAccountTypeInput:
    name: str = strawberry.field(description=NAME)


@strawberry.input
class UpdateAccountTypeInput:
    account_type_id: strawberry.ID
    name: str = strawberry.field(description=f"{NAME} The name that it has: what AWS has refused is tried again.")


@strawberry.type
class CreateAccountTypePayload:
    account_type: AccountType | None
    user_errors: list[UserError]


@strawberry.type
class UpdateAccountTypePayload:
    account_type: AccountType | None
    user_errors: list[UserError]


@strawberry.type
class AccountTypeMutation:
    @mutation(
        Role.OPERATOR,
        races=service.RACES,
        description="Create an account type; its organizational unit in AWS follows within seconds.",
    )
    async def create_account_type(
        self, info: Info[Context, None], input: CreateAccountTypeInput
    ) -> CreateAccountTypePayload:
        created = await mutate(
            info, lambda session: service.create_account_type(session, info.context.viewer.tenancy_id, input.name)
        )
        return await read_payload(info, CreateAccountTypePayload, account_type=created.id)

    @mutation(
        Role.OPERATOR,
        races=service.RACES,
        description="Rename an account type, and its organizational unit in AWS within seconds.",
    )
    async def update_account_type(
        self, info: Info[Context, None], input: UpdateAccountTypeInput
    ) -> UpdateAccountTypePayload:
        account_type_id = node_id(input.account_type_id, "typ", "accountTypeId")
        await mutate(
            info,
            lambda session: service.rename_account_type(
                session, info.context.viewer.tenancy_id, account_type_id, input.name
            ),
        )
        return await read_payload(info, UpdateAccountTypePayload, account_type=account_type_id)
