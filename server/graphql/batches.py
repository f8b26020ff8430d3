"""Batches: many items in one mutation, each served or refused by itself, in a transaction of its own, in their order.

A client that lost the answer sends the same batch again: each item has a key, under which it is done once.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from server.errors import Refused, UserError, UserErrorCode, refuse
from server.graphql.mutations import Races, lost_race

MOST_ITEMS = 100

T = TypeVar("T")
# The id of what an item is about, or why it was refused.
Outcome: TypeAlias = UUID | tuple[UserError, ...]


def check_keys(keys: Sequence[str]) -> None:
    """Raise Refused, VALIDATION, for a batch that is too long or has a key twice."""
    if len(keys) > MOST_ITEMS:
        message = f"There are {len(keys)} items; at most {MOST_ITEMS} are taken at a time."
        raise refuse(UserErrorCode.VALIDATION, message, "items")
    first = {key: index for index, key in reversed([*enumerate(keys)])}
    twice = [
        UserError(
            UserErrorCode.VALIDATION,
            f"The item has the key of item {first[key]}; give each item of a batch one of its own.",
            ("items", str(index), "key"),
        )
        for index, key in enumerate(keys)
        if first[key] != index
    ]
    if twice:
        raise Refused(*twice)


async def one_by_one(items: Sequence[T], do: Callable[[T], Awaitable[UUID]], races: Races) -> list[Outcome]:
    """What becomes of each item; the fields of its errors begin with its index. `races` are those of `mutation`."""
    outcomes: list[Outcome] = []
    for index, item in enumerate(items):
        try:
            outcomes.append(await do(item))
        except Refused as refused:
            outcomes.append(_below(index, refused.errors))
        except IntegrityError as error:
            outcomes.append(_below(index, [lost_race(error, races)]))
    return outcomes


def _below(index: int, errors: Sequence[UserError]) -> tuple[UserError, ...]:
    return tuple(UserError(each.code, each.message, (str(index), *(each.field or ()))) for each in errors)
