"""What every resolver is given: who asks, and the ways to read and write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from server.identity.models import Role

if TYPE_CHECKING:
    from server.graphql.hub import Hub


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who makes a request, from its API token. Everything the request touches lies in `tenancy_id`."""

    token_id: UUID
    token_name: str
    tenancy_id: UUID
    role: Role


class Reads(Protocol):
    """What reads the statements of the planner: a `Reader`, or one that stands before it."""

    async def fetch(self, tenancy_id: UUID, sql: str, values: Sequence[object] = ()) -> bytes | None:
        """The single value of a statement's single row, with row-level security open for the tenancy alone."""


@dataclass(frozen=True, slots=True)
class Context:
    viewer: Viewer
    engine: AsyncEngine
    reader: Reads
    hub: "Hub"
