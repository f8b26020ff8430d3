"""The edge of every mutation: who may, one transaction, and refusals as `userErrors`.

    @strawberry.type
    class AccountMutation:
        @mutation(Role.OPERATOR, races=service.RACES)
        async def create_account(self, info: Info, input: CreateAccountInput) -> CreateAccountPayload:
            account = await mutate(info, lambda session: service.create_account(session, ...))
            return CreateAccountPayload(account=await ...)

A payload has a `user_errors` list, and everything beside it is None, or its default, when the mutation is refused.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

import strawberry
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver
from strawberry.types import Info
from strawberry.types.base import StrawberryContainer, get_object_definition
from strawberry.types.field import StrawberryField

from server import errors
from server.context import Context
from server.database import transaction
from server.graphql.errors import UserError, user_error
from server.graphql.ids import InvalidId, decode
from server.identity.models import Role
from server.planner.read import check_payload

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
PERMISSION = "permission"
QUESTION = "question"
Races = Mapping[str, errors.UserError]


def mutation(permission: Role, *, races: Races | None = None, **options: Any) -> Callable[[F], F]:
    """Declare a mutation that viewers with `permission` or more may run.

    `races` says what a violation of a unique constraint means to the user, by the constraint's name; services have a
    `RACES` of their own. `options` go to `strawberry.mutation`.
    """
    declare: Callable[[F], F] = strawberry.mutation(
        extensions=[MutationEdge(permission, races or {})], metadata={PERMISSION: permission}, **options
    )
    return declare


def question(**options: Any) -> Callable[[F], F]:
    """Declare a field of the query type that is worked out rather than read, for every viewer.

    It has a payload like a mutation's. The ordinary executor runs whatever is asked together with it. `options` go to
    `strawberry.field`.
    """
    declare: Callable[[F], F] = strawberry.field(extensions=[Edge()], metadata={QUESTION: True}, **options)
    return declare


async def mutate(info: Info[Context, None], work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run `work` in one transaction of the viewer's tenancy, committed when it returns."""
    context = info.context
    async with transaction(context.engine, context.viewer.tenancy_id) as session:
        return await work(session)


def node_id(id_: str, prefix: str, *field: str) -> UUID:
    """The UUID of an id in the input; raises Refused when the text is no id, or the id of another type."""
    try:
        return decode(id_, prefix)
    except InvalidId as error:
        raise errors.refuse(errors.UserErrorCode.VALIDATION, str(error), *field) from None


def permissions(schema: strawberry.Schema) -> dict[str, Role | None]:
    """The permission that each mutation of the schema declares; None for one that declares none."""
    if schema.mutation is None:
        return {}
    definition = get_object_definition(schema.mutation, strict=True)
    return {field.python_name: _permission(field) for field in definition.fields}


def _permission(field: StrawberryField) -> Role | None:
    metadata: Mapping[Any, Any] = field.metadata or {}
    return metadata.get(PERMISSION)


class Edge(FieldExtension):
    """A refusal becomes the `userErrors` of the field's payload."""

    def __init__(self) -> None:
        self._payload: Callable[..., Any] | None = None

    def apply(self, field: StrawberryField) -> None:
        payload = field.type.of_type if isinstance(field.type, StrawberryContainer) else field.type
        definition = get_object_definition(payload)
        if definition is None or "user_errors" not in {each.python_name for each in definition.fields}:
            raise TypeError(f"{field.python_name} must return a payload with user_errors.")
        others = [
            each.python_name
            for each in definition.fields
            if each.python_name != "user_errors" and each.default_factory is dataclasses.MISSING
        ]
        self._payload = lambda errors: definition.origin(**dict.fromkeys(others), user_errors=errors)

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **kwargs: Any) -> Any:
        try:
            return await next_(source, info, **kwargs)
        except errors.Refused as refused:
            return self._refused(*refused.errors)

    def _refused(self, *found: errors.UserError) -> Any:
        assert self._payload is not None
        shown: list[UserError] = [user_error(error) for error in found]
        return self._payload(shown)


class MutationEdge(Edge):
    def __init__(self, permission: Role, races: Races) -> None:
        super().__init__()
        self.permission = permission
        self.races = races

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **kwargs: Any) -> Any:
        viewer = info.context.viewer
        if not viewer.role.includes(self.permission):
            return self._refused(
                errors.UserError(
                    errors.UserErrorCode.FORBIDDEN,
                    f"This needs the role {self.permission} or higher; the API token {viewer.token_name!r} "
                    f"has the role {viewer.role}.",
                )
            )
        # Before anything is written: what keeps the answer from being read would come to light after the commit.
        check_payload(info)
        try:
            return await super().resolve_async(next_, source, info, **kwargs)
        except IntegrityError as error:
            return self._refused(lost_race(error, self.races))


def lost_race(error: IntegrityError, races: Races) -> errors.UserError:
    """What the violation of a constraint means to the user; raises the error again when it is none of the races."""
    found = races.get(violated_constraint(error) or "")
    if found is None:
        raise error
    return found


def violated_constraint(error: IntegrityError) -> str | None:
    """The name of the constraint that a statement violated, as asyncpg reports it behind SQLAlchemy's exception."""
    cause: BaseException | None = error.orig
    while cause is not None:
        name = getattr(cause, "constraint_name", None)
        if name is not None:
            return str(name)
        cause = cause.__cause__
    return None
