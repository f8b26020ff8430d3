"""Opaque ids: a prefix that tells the type, `_`, and the row's UUID in hexadecimal, as in `acc_0199...`."""

import re
from uuid import UUID

# The types that have ids, by prefix, as a message names them.
PREFIXES = {
    "ten": "a tenancy",
    "acc": "an account",
    "typ": "an account type",
    "pol": "a policy",
    "att": "a policy attachment",
    "set": "an account setup",
    "tok": "an API token",
    "grp": "a group",
    "usr": "a user",
}
_FORM = re.compile(r"([a-z]{3})_([0-9a-f]{32})")


class InvalidId(ValueError):
    """The text is not an id, or is the id of another type; the message says which and what would be right."""


def encode(prefix: str, key: UUID) -> str:
    """The id of a row."""
    assert prefix in PREFIXES
    return f"{prefix}_{key.hex}"


def parse(id_: str) -> tuple[str, UUID]:
    """The prefix and the UUID of an id of any type; raises InvalidId."""
    return _parse(id_, "ids look like acc_ and 32 hexadecimal digits")


def decode(id_: str, prefix: str) -> UUID:
    """The UUID of an id of the one type; raises InvalidId."""
    found, key = _parse(id_, f"the id of {PREFIXES[prefix]} looks like {prefix}_ and 32 hexadecimal digits")
    if found != prefix:
        raise InvalidId(f"{id_!r} is the id of {PREFIXES[found]}, not of {PREFIXES[prefix]}.")
    return key


def _parse(id_: str, form: str) -> tuple[str, UUID]:
    match = _FORM.fullmatch(id_)
    if match is None or match[1] not in PREFIXES:
        raise InvalidId(f"{id_[:60]!r} is not an id; {form}.")
    return match[1], UUID(match[2])
