"""Root fields about tenancies."""

import strawberry

from server.planner.mapping import viewers
from server.tenancies.types import Tenancy


@strawberry.type
class TenancyQuery:
    tenancy: Tenancy = viewers(description="The tenancy of whoever asks.")
