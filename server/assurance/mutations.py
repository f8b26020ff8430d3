"""Mutations that begin or retry a setup: creating, changing and retrying an account."""

from uuid import UUID

import strawberry
from strawberry.types import Info

from server.accounts.service import actor
from server.accounts.tags import TagValue
from server.accounts.types import Account
from server.assurance import requests
from server.context import Context
from server.graphql.errors import UserError
from server.graphql.mutations import mutate, mutation, node_id
from server.identity.models import Role
from server.planner import read_payload

NAME = "1 to 50 letters, digits, spaces and ASCII punctuation other than < and >; unique, whatever the case."
ALIAS = "3 to 63 lower-case letters, digits and single hyphens; unique over all of AWS."
TAGS = "At most 50 tags, inside Freehold unless the tenancy propagates them."
IDEMPOTENCY_KEY = (
    "1 to 255 ASCII letters, digits and punctuation, such as a UUID: the tenancy's own name for this request, kept for"
    " 30 days from when it was served. The same key with the same input changes nothing more and returns the same"
    " object, as it is by then; with another input, or for another mutation, it is refused as IDEMPOTENCY_CONFLICT."
    " The order of tags does not matter. A request that was refused leaves no key."
)


@strawberry.input
class TagInput:
    key: str = strawberry.field(
        description="1 to 128 letters, digits, spaces and + - = . _ : / @, not beginning with aws:."
    )
    value: str = strawberry.field(description="At most 256 letters, digits, spaces and + - = . _ : / @.")


@strawberry.input
class CreateAccountInput:
    name: str = strawberry.field(description=NAME)
    account_type_id: strawberry.ID
    alias: str | None = strawberry.field(
        default=None,
        description=f"{ALIAS} Absent: made from the name; where AWS says it is taken, a short suffix is added.",
    )
    tags: list[TagInput] | None = strawberry.field(default=None, description=TAGS)
    email: str | None = strawberry.field(
        default=None,
        description="6 to 64 characters, unique over all of AWS. Absent: made from the tenancy's template.",
    )
    idempotency_key: str | None = strawberry.field(default=None, description=IDEMPOTENCY_KEY)


@strawberry.input
class UpdateAccountInput:
    account_id: strawberry.ID
    name: str | None = strawberry.field(default=None, description=f"{NAME} Absent: unchanged.")
    alias: str | None = strawberry.field(
        default=None, description=f"{ALIAS} Absent: unchanged, or made from the new name where the old one was."
    )
    account_type_id: strawberry.ID | None = strawberry.field(default=None, description="Absent: unchanged.")
    tags: list[TagInput] | None = strawberry.field(
        default=None, description=f"{TAGS} They replace all that the account has. Absent: unchanged."
    )
    email: str | None = strawberry.field(
        default=None, description="Only while AWS has not created the account. Absent: unchanged."
    )


@strawberry.input
class SetAccountTagsInput:
    account_id: strawberry.ID
    tags: list[TagInput] = strawberry.field(
        description="Each takes the place of the account's tag of the same key; its other tags stay."
    )


@strawberry.input
class RemoveAccountTagsInput:
    account_id: strawberry.ID
    keys: list[str] = strawberry.field(description="At most 50. The account need not have a tag of each.")


@strawberry.input
class RetryAccountSetupInput:
    account_id: strawberry.ID
    stage: str | None = strawberry.field(
        default=None, description="The name of a failed stage. Absent: every failed stage of the latest setup."
    )


@strawberry.input
class ReassureAccountInput:
    account_id: strawberry.ID


@strawberry.input
class CancelAccountSetupInput:
    setup_id: strawberry.ID


@strawberry.type
class CreateAccountPayload:
    account: Account | None
    user_errors: list[UserError]


@strawberry.type
class UpdateAccountPayload:
    account: Account | None
    user_errors: list[UserError]


@strawberry.type
class SetAccountTagsPayload:
    account: Account | None
    user_errors: list[UserError]


@strawberry.type
class RemoveAccountTagsPayload:
    account: Account | None
    user_errors: list[UserError]


@strawberry.type
class RetryAccountSetupPayload:
    account: Account | None
    user_errors: list[UserError]


@strawberry.type
class ReassureAccountPayload:
    account: Account | None
    user_errors: list[UserError]


@strawberry.type
class CancelAccountSetupPayload:
    account: Account | None
    user_errors: list[UserError]


@strawberry.type
class AssuranceMutation:
    @mutation(
        Role.OPERATOR,
        races=requests.RACES,
        description="Create an account. Its setup creates it in AWS and hardens it: follow it with `accountSetup`.",
    )
    async def create_account(self, info: Info[Context, None], input: CreateAccountInput) -> CreateAccountPayload:
        viewer = info.context.viewer
        account_type_id = node_id(input.account_type_id, "typ", "accountTypeId")
        account_id = await mutate(
            info,
            lambda session: requests.create_account(
                session,
                actor(viewer),
                viewer.tenancy_id,
                name=input.name,
                account_type_id=account_type_id,
                alias=input.alias,
                tags=tag_values(input.tags) or (),
                email=input.email,
                idempotency_key=input.idempotency_key,
            ),
        )
        return await read_payload(info, CreateAccountPayload, account=account_id)

    @mutation(
        Role.OPERATOR,
        races=requests.RACES,
        description=(
            "Change an account. A new name, alias or type begins a setup that brings AWS in line. Another type needs an"
            " ADMIN."
        ),
    )
    async def update_account(self, info: Info[Context, None], input: UpdateAccountInput) -> UpdateAccountPayload:
        account_id = node_id(input.account_id, "acc", "accountId")
        account_type_id: UUID | None = None
        if input.account_type_id is not None:
            account_type_id = node_id(input.account_type_id, "typ", "accountTypeId")
        await mutate(
            info,
            lambda session: requests.update_account(
                session,
                info.context.viewer.tenancy_id,
                account_id,
                name=input.name,
                alias=input.alias,
                email=input.email,
                account_type_id=account_type_id,
                tags=tag_values(input.tags),
                may_move=info.context.viewer.role.includes(Role.ADMIN),
            ),
        )
        return await read_payload(info, UpdateAccountPayload, account=account_id)

    @mutation(
        Role.OPERATOR,
        description="Give an account tags besides those that it has, which are at most 50 then, also during a setup.",
    )
    async def set_account_tags(self, info: Info[Context, None], input: SetAccountTagsInput) -> SetAccountTagsPayload:
        account_id = node_id(input.account_id, "acc", "accountId")
        tags = tag_values(input.tags) or []
        await mutate(
            info,
            lambda session: requests.set_account_tags(session, info.context.viewer.tenancy_id, account_id, tags),
        )
        return await read_payload(info, SetAccountTagsPayload, account=account_id)

    @mutation(Role.OPERATOR, description="Take tags from an account, also during a setup.")
    async def remove_account_tags(
        self, info: Info[Context, None], input: RemoveAccountTagsInput
    ) -> RemoveAccountTagsPayload:
        account_id = node_id(input.account_id, "acc", "accountId")
        await mutate(
            info,
            lambda session: requests.remove_account_tags(
                session, info.context.viewer.tenancy_id, account_id, input.keys
            ),
        )
        return await read_payload(info, RemoveAccountTagsPayload, account=account_id)

    @mutation(
        Role.OPERATOR,
        races=requests.RACES,
        description="Retry what failed in the account's latest setup; stages that completed stay completed.",
    )
    async def retry_account_setup(
        self, info: Info[Context, None], input: RetryAccountSetupInput
    ) -> RetryAccountSetupPayload:
        account_id = node_id(input.account_id, "acc", "accountId")
        await mutate(
            info,
            lambda session: requests.retry_account_setup(
                session, info.context.viewer.tenancy_id, account_id, input.stage
            ),
        )
        return await read_payload(info, RetryAccountSetupPayload, account=account_id)

    @mutation(
        Role.OPERATOR,
        races=requests.RACES,
        description=(
            "Go through every stage of an ACTIVE account again, and put right what somebody has changed in AWS: the"
            " hardening, the unit, the roles of groups."
        ),
    )
    async def reassure_account(self, info: Info[Context, None], input: ReassureAccountInput) -> ReassureAccountPayload:
        account_id = node_id(input.account_id, "acc", "accountId")
        await mutate(
            info,
            lambda session: requests.reassure_account(session, info.context.viewer.tenancy_id, account_id),
        )
        return await read_payload(info, ReassureAccountPayload, account=account_id)

    @mutation(
        Role.OPERATOR,
        description=(
            "Give an account up that AWS was not asked to create, or has refused, also when its setup has FAILED; once"
            " AWS may have made it, CREATION_BEGUN says so. The account, its setup and the stages that were not over"
            " are CANCELLED for good and can still be read; the account's name, alias and e-mail are free for another"
            " one."
        ),
    )
    async def cancel_account_setup(
        self, info: Info[Context, None], input: CancelAccountSetupInput
    ) -> CancelAccountSetupPayload:
        setup_id = node_id(input.setup_id, "set", "setupId")
        account_id = await mutate(
            info,
            lambda session: requests.cancel_account_setup(session, info.context.viewer.tenancy_id, setup_id),
        )
        return await read_payload(info, CancelAccountSetupPayload, account=account_id)


def tag_values(tags: list[TagInput] | None) -> list[TagValue] | None:
    return None if tags is None else [TagValue(tag.key, tag.value) for tag in tags]
