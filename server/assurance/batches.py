"""Mutations of many accounts at a time, item by item."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import strawberry
from strawberry.types import Info

from server.accounts.service import actor
from server.accounts.types import Account
from server.assurance import requests
from server.assurance.mutations import ALIAS, NAME, TAGS, TagInput, tag_values
from server.context import Context
from server.graphql.batches import MOST_ITEMS, Outcome, check_keys, one_by_one
from server.graphql.errors import UserError, user_error
from server.graphql.limits import MOST
from server.graphql.mutations import mutate, mutation, node_id
from server.identity.models import Role
from server.planner import read_each

KEY = (
    "1 to 255 ASCII letters, digits and punctuation, such as a UUID; another one for each item. It is the tenancy's own"
    " name for this item of this mutation, kept for 30 days from when it was served: sent again with the same input it"
    " changes nothing more, and with another it is refused as IDEMPOTENCY_CONFLICT. A refused item leaves no key."
)
ITEMS = "At most 100."
IN_ORDER = (
    " Each item is served or refused by itself, in the order of the batch; the fields of its errors begin with its"
    " index there. A client that lost the answer sends the same batch again."
)


@strawberry.input
class CreateAccountsItem:
    key: str = strawberry.field(description=KEY)
    name: str = strawberry.field(description=NAME)
    account_type_id: strawberry.ID
    alias: str | None = strawberry.field(default=None, description=f"{ALIAS} Absent: as in `createAccount`.")
    tags: list[TagInput] | None = strawberry.field(default=None, description=TAGS)
    email: str | None = strawberry.field(default=None, description="As in `createAccount`.")


@strawberry.input
class CreateAccountsInput:
    items: list[CreateAccountsItem] = strawberry.field(description=ITEMS)


@strawberry.input
class MoveAccountsItem:
    key: str = strawberry.field(description=KEY)
    account_id: strawberry.ID
    account_type_id: strawberry.ID = strawberry.field(
        description="Where the account goes; the type that it is of changes nothing."
    )


@strawberry.input
class MoveAccountsInput:
    items: list[MoveAccountsItem] = strawberry.field(description=ITEMS)


@strawberry.type(description="What became of one item of a batch.")
class AccountResult:
    key: str = strawberry.field(description="That of the item.")
    account: Account | None = strawberry.field(description="Null when the item was refused.")
    user_errors: list[UserError]


@strawberry.type
class CreateAccountsPayload:
    user_errors: list[UserError] = strawberry.field(description="What is wrong with the batch as a whole.")
    results: list[AccountResult] = strawberry.field(
        default_factory=list,
        metadata={MOST: MOST_ITEMS},
        description="One for each item, in their order; none when the whole batch is refused.",
    )


@strawberry.type
class MoveAccountsPayload:
    user_errors: list[UserError] = strawberry.field(description="What is wrong with the batch as a whole.")
    results: list[AccountResult] = strawberry.field(
        default_factory=list,
        metadata={MOST: MOST_ITEMS},
        description="One for each item, in their order; none when the whole batch is refused.",
    )


P = TypeVar("P", CreateAccountsPayload, MoveAccountsPayload)


@strawberry.type
class BatchMutation:
    @mutation(
        Role.OPERATOR,
        description=f"Create up to 100 accounts, as `createAccount` creates one.{IN_ORDER}",
    )
    async def create_accounts(self, info: Info[Context, None], input: CreateAccountsInput) -> CreateAccountsPayload:
        keys = [item.key for item in input.items]
        check_keys(keys)
        viewer = info.context.viewer

        async def create(item: CreateAccountsItem) -> UUID:
            account_type_id = node_id(item.account_type_id, "typ", "accountTypeId")
            return await mutate(
                info,
                lambda session: requests.create_account(
                    session,
                    actor(viewer),
                    viewer.tenancy_id,
                    name=item.name,
                    account_type_id=account_type_id,
                    alias=item.alias,
                    tags=tag_values(item.tags) or (),
                    email=item.email,
                    idempotency_key=item.key,
                    is_item=True,
                ),
            )

        outcomes = await one_by_one(input.items, create, requests.RACES)
        return await _payload(info, CreateAccountsPayload(user_errors=[]), keys, outcomes)

    @mutation(
        Role.ADMIN,
        description=(
            "Move up to 100 accounts to other types, as `updateAccount` moves one: setups move them in AWS, each when"
            f" the policies of its new type are in force there.{IN_ORDER}"
        ),
    )
    async def move_accounts(self, info: Info[Context, None], input: MoveAccountsInput) -> MoveAccountsPayload:
        keys = [item.key for item in input.items]
        check_keys(keys)

        async def move(item: MoveAccountsItem) -> UUID:
            account_id = node_id(item.account_id, "acc", "accountId")
            account_type_id = node_id(item.account_type_id, "typ", "accountTypeId")
            return await mutate(
                info,
                lambda session: requests.move_account(
                    session, info.context.viewer.tenancy_id, account_id, account_type_id, item.key
                ),
            )

        outcomes = await one_by_one(input.items, move, requests.RACES)
        return await _payload(info, MoveAccountsPayload(user_errors=[]), keys, outcomes)


async def _payload(info: Info[Context, None], payload: P, keys: Sequence[str], outcomes: Sequence[Outcome]) -> P:
    """The payload with a result for each item; the accounts are read in one statement."""

    def results(accounts: Mapping[UUID, Any]) -> list[AccountResult]:
        return [_result(key, outcome, accounts) for key, outcome in zip(keys, outcomes, strict=True)]

    ids = [outcome for outcome in outcomes if isinstance(outcome, UUID)]
    payload.results = await read_each(info, ("results", "account"), ids, results)
    return payload


def _result(key: str, outcome: Outcome, accounts: Mapping[UUID, Any]) -> AccountResult:
    if isinstance(outcome, UUID):
        return AccountResult(key=key, account=accounts[outcome], user_errors=[])
    return AccountResult(key=key, account=None, user_errors=[user_error(error) for error in outcome])
