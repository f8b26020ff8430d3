"""Root fields about account assurance."""

import strawberry

from server.assurance.types import StageDefinition
from server.planner.mapping import to_many


@strawberry.type
class AssuranceQuery:
    stage_catalogue: list[StageDefinition] = to_many(
        order=("position",), description="What a setup does, in order; empty until a worker has started."
    )
