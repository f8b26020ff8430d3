"""Lists that are read again and again: one selection of rows that are numbered, a part at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from server.context import Reads

# Between two rows. JSON never holds it: in a text it is escaped.
SEPARATOR = "\x1e"


@dataclass(frozen=True, slots=True, eq=False)
class ListPlan:
    """A statement that reads the rows after a number, and everything that it depends on but that number."""

    tenancy_id: UUID
    reader: Reads
    sql: str
    values: Sequence[object]
    # Where among the values the number stands, and how many rows to read.
    places: tuple[int, int]

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for plans that read the same rows and show the same of them: selections may be spelt in many ways."""
        return self.tenancy_id, self.sql, *map(_hashable, self.values)

    async def read(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """At most `limit` rows after a number, in order: each with its number and its JSON."""
        values = list(self.values)
        values[self.places[0]], values[self.places[1]] = after, limit
        text = await self.reader.fetch(self.tenancy_id, self.sql, values)
        rows = (line.partition(b" ") for line in text.split(SEPARATOR.encode())) if text else ()
        return [(int(number), json) for number, _, json in rows]


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
