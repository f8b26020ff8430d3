"""Mutations of what holds for all accounts of a tenancy."""

import strawberry
from strawberry.types import Info

from server.accounts.governance import switch_propagation
from server.context import Context
from server.graphql.errors import UserError
from server.graphql.mutations import mutate, mutation
from server.identity.models import Role
from server.planner import read_payload
from server.tenancies.types import Tenancy


@strawberry.input
class UpdateTenancyInput:
    propagate_tags: bool | None = strawberry.field(
        default=None,
        description=(
            "Whether the tags of accounts are brought to AWS Organizations. When that is switched off, those that"
            " Freehold has set there are removed; tags of others are left alone either way. Absent: unchanged."
        ),
    )


@strawberry.type
class UpdateTenancyPayload:
    tenancy: Tenancy | None
    user_errors: list[UserError]


@strawberry.type
class AccountMutation:
    @mutation(
        Role.ADMIN,
        description="Change what holds for the whole tenancy; accounts follow by setups of the kind GOVERN.",
    )
    async def update_tenancy(self, info: Info[Context, None], input: UpdateTenancyInput) -> UpdateTenancyPayload:
        tenancy_id = info.context.viewer.tenancy_id
        if (on := input.propagate_tags) is not None:
            await mutate(info, lambda session: switch_propagation(session, tenancy_id, on=on))
        return await read_payload(info, UpdateTenancyPayload, tenancy=tenancy_id)
