"""Root fields about identity."""

import strawberry

from server.identity.types import Viewer
from server.planner.mapping import viewers


@strawberry.type
class IdentityQuery:
    viewer: Viewer = viewers(on={"id": "token_id"}, description="Whoever asks.")
