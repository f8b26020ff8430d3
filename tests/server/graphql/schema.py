"""A schema that has one of everything the endpoint must cope with, and no domain."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import strawberry
from sqlalchemy import text
from strawberry.types import Info

from server.context import Context
from server.errors import UserError as Fault
from server.errors import UserErrorCode, refuse
from server.graphql.errors import ErrorCode, UserError, coded
from server.graphql.mutations import mutate, mutation
from server.graphql.schema import Schema
from server.identity.models import Role
from server.identity.service import RACES, create_token

SECRET_DETAIL = "password=hunter2"


@strawberry.type
class ItemConnection:
    nodes: list["Item"]


@strawberry.type
class Item:
    name: str

    @strawberry.field
    def items(self, first: int | None = None) -> ItemConnection:
        return ItemConnection(nodes=[])


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "world") -> str:
        return f"hello {name}"

    @strawberry.field
    def me(self, info: Info[Context, None]) -> str:
        return info.context.viewer.token_name

    @strawberry.field
    def items(self, first: int | None = None) -> ItemConnection:
        return ItemConnection(nodes=[Item(name="one")])

    @strawberry.field
    def broken(self) -> str | None:
        raise RuntimeError(SECRET_DETAIL)

    @strawberry.field
    def missing(self) -> str | None:
        raise coded(ErrorCode.NOT_FOUND, "There is no such thing.")

    @strawberry.field
    async def database(self, info: Info[Context, None]) -> int | None:
        async with info.context.engine.connect() as connection:
            return int((await connection.execute(text("SELECT 1"))).scalar_one())


@strawberry.input
class CreateTokenInput:
    name: str


@strawberry.type
class CreateTokenPayload:
    name: str | None
    user_errors: list[UserError]


@strawberry.type
class Mutation:
    @mutation(Role.ADMIN, races=RACES)
    async def create_token(self, info: Info[Context, None], input: CreateTokenInput) -> CreateTokenPayload:
        tenancy_id = info.context.viewer.tenancy_id
        token, _ = await mutate(info, lambda session: create_token(session, tenancy_id, input.name, Role.USER))
        return CreateTokenPayload(name=token.name, user_errors=[])

    @mutation(
        Role.OPERATOR,
        races={"uq_tenancy_name": Fault(UserErrorCode.NAME_IN_USE, "This name is taken.", ("name",))},
    )
    async def race(self, info: Info[Context, None], constraint: str) -> CreateTokenPayload:
        statement = text(f"DO $$ BEGIN RAISE unique_violation USING CONSTRAINT = '{constraint}'; END $$")
        await mutate(info, lambda session: session.execute(statement))
        raise AssertionError("unreachable")

    @mutation(Role.READONLY)
    async def refused(self, info: Info[Context, None]) -> CreateTokenPayload:
        raise refuse(UserErrorCode.VALIDATION, "No.", "a", "b")


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(1, to + 1):
            yield number

    @strawberry.subscription
    async def forever(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    @strawberry.subscription
    async def broken(self) -> AsyncIterator[int]:
        yield 1
        raise RuntimeError(SECRET_DETAIL)

    @strawberry.subscription
    async def invalid(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError(SECRET_DETAIL)

    @strawberry.subscription
    async def wakes(self, info: Info[Context, None], account_id: UUID, after: int = 0) -> AsyncIterator[int]:
        """The number of each time the hub woke this reader."""
        tenancy_id = info.context.viewer.tenancy_id
        async with info.context.hub.subscription(tenancy_id, account_id, after) as reader:
            number = 0
            while True:
                await reader.wait()
                number += 1
                yield number


schema = Schema(Query, mutation=Mutation, subscription=Subscription)
