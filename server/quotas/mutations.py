"""Mutations of quotas."""

import strawberry
from strawberry.types import Info

from server.context import Context
from server.graphql.errors import UserError
from server.graphql.mutations import mutate, mutation
from server.identity.models import Role
from server.planner import read_payload
from server.quotas import service
from server.quotas.types import SetQuotaInput
from server.tenancies.types import Tenancy


@strawberry.type
class SetQuotaPayload:
    tenancy: Tenancy | None
    user_errors: list[UserError]


@strawberry.type
class QuotaMutation:
    @mutation(
        Role.ADMIN,
        description="Set a limit that AWS Support has changed and that AWS does not tell: it counts here, not in AWS.",
    )
    async def set_quota(self, info: Info[Context, None], input: SetQuotaInput) -> SetQuotaPayload:
        tenancy_id = info.context.viewer.tenancy_id
        await mutate(info, lambda session: service.set_quota(session, tenancy_id, input.code, input.limit))
        return await read_payload(info, SetQuotaPayload, tenancy=tenancy_id)
