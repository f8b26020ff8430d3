"""Scalars and enums as the schema shows them."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

from server.leases import StageErrorClass


def _serialize(value: object) -> str:
    """Text comes from PostgreSQL in the one format already, which is that of its to_json."""
    if isinstance(value, datetime):
        seconds, dot, fraction = value.astimezone(UTC).isoformat().removesuffix("+00:00").partition(".")
        return f"{seconds}{dot}{fraction.rstrip('0')}+00:00"
    return str(value)


def _parse(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise GraphQLError(f"DateTime must be RFC 3339, as 2026-11-23T10:00:00Z, not {str(value)[:60]!r}.") from None
    if moment.tzinfo is None:
        raise GraphQLError(f"DateTime must say its time zone, as 2026-11-23T10:00:00Z, not {value!r}.")
    return moment


DATE_TIME: ScalarDefinition = strawberry.scalar(
    name="DateTime",
    description=(
        "A moment in RFC 3339. Answers are in UTC, with a fraction of up to six digits where it is not zero:"
        " `2026-11-23T10:00:00+00:00`, `2026-11-23T10:00:00.25+00:00`. Sorted as text they are in their order."
    ),
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    serialize=_serialize,
    parse_value=_parse,
)

SCALARS: dict[object, ScalarDefinition] = {datetime: DATE_TIME}


def expose(values: type[StrEnum], description: str, *, name: str | None = None, **descriptions: str) -> None:
    """Show an enum of the tables in the schema, with a description of each value that needs one."""
    shown: Any = strawberry.enum(values, name=name, description=description)
    by_name = {value.name: value for value in shown.__strawberry_definition__.values}
    for value, text in descriptions.items():
        by_name[value].description = text


# Of everything that workers do, so of no one domain.
expose(
    StageErrorClass,
    "What has to happen after an error.",
    TRANSIENT="Nothing: it is tried again.",
    PERMANENT="It would fail again as it is.",
    NEEDS_PERSON="Somebody has to do what the message says, and then retry.",
)
