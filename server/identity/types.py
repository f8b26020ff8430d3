"""GraphQL types of identity."""

import strawberry

from server.graphql.scalars import expose
from server.identity import models
from server.identity.models import Role
from server.planner.mapping import column, table, to_one
from server.tenancies.types import Tenancy

expose(
    Role,
    "What a viewer may do; each role includes those below it.",
    ADMIN="Everything, API tokens among it.",
    OPERATOR="Create accounts and account types, and change them; not what binds accounts and who has access.",
    USER="Work with the accounts they have access to.",
    READONLY="Read.",
)


@strawberry.type(description="Whoever asks.")
@table(models.ApiToken)
class Viewer:
    name: str
    role: Role
    token_id: strawberry.ID = column("id", node="tok", description="The id of the API token the request came with.")
    tenancy: Tenancy = to_one(on={"id": "tenancy_id"})
