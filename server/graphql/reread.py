"""Reading a query again field by field, after its one statement failed.

What was wrong with one field then costs that field alone, and its error says where it is. A document may have fifty,
so they are read one after the other, and none any more once PostgreSQL was too slow or away.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
from graphql import GraphQLError

from server.graphql.errors import coded, describe_fault
from server.outages import is_away
from server.planner.reader import Reader


class Rereader:
    """The reader of one request whose statement failed with `fault`; it raises what clients may see."""

    def __init__(self, reader: Reader, fault: Exception) -> None:
        self._reader = reader
        self._one_at_a_time = asyncio.Lock()
        self._answer: GraphQLError | None = None
        self._note(fault)

    @property
    def gives_up(self) -> bool:
        """Whether nothing is read any more."""
        return self._answer is not None

    async def fetch(self, tenancy_id: UUID, sql: str, values: Sequence[object] = ()) -> bytes | None:
        """As `Reader.fetch`."""
        async with self._one_at_a_time:
            if self._answer is not None:
                raise GraphQLError(self._answer.message, extensions=self._answer.extensions)
            try:
                return await self._reader.fetch(tenancy_id, sql, values)
            except Exception as error:
                self._note(error)
                raise

    def _note(self, fault: Exception) -> None:
        if is_away(fault) or isinstance(fault, asyncpg.QueryCanceledError):
            self._answer = coded(*describe_fault(fault))
