"""What every resolver is given: who asks, and the ways to read and write."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from server.identity.models import Role

if TYPE_CHECKING:
    from server.graphql.hub import Hub
    from server.planner.reader import Reader


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who makes a request, from its API token. Everything the request touches lies in `tenancy_id`."""

    token_id: UUID
    token_name: str
    tenancy_id: UUID
    role: Role


@dataclass(frozen=True, slots=True)
class Context:
    viewer: Viewer
    engine: AsyncEngine
    reader: "Reader"
    hub: "Hub"
