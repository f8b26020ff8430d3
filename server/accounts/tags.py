"""The rules of tags: what a key and a value may be, how many an account has, and how they are changed.

Lengths and numbers are those that AWS Organizations accepts, so that an account's tags can be taken there at any time:
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_tagging.html
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.models import Account, Tag
from server.errors import Refused, UserError, UserErrorCode, refuse

MOST_TAGS = 50
KEY_LENGTH = 128
VALUE_LENGTH = 256
TEXT = re.compile(r"[a-zA-Z0-9+\-=._:/@ ]*")
# Keys that begin so, whatever the case, are AWS's own.
RESERVED = "aws:"
_ALLOWED = "letters, digits, spaces and + - = . _ : / @"


@dataclass(frozen=True, slots=True)
class TagValue:
    key: str
    value: str


def tag_errors(tags: Sequence[TagValue]) -> list[UserError]:
    """Every fault of tags that one account is given at once."""
    if len(tags) > MOST_TAGS:
        return [_invalid(f"There are {len(tags)} tags; at most {MOST_TAGS} are allowed.")]
    errors: list[UserError] = []
    seen: set[str] = set()
    for index, tag in enumerate(tags):
        if message := _key_fault(tag.key):
            errors.append(_invalid(message, str(index), "key"))
        if len(tag.value) > VALUE_LENGTH or not TEXT.fullmatch(tag.value):
            errors.append(_invalid(f"A tag value has at most {VALUE_LENGTH} {_ALLOWED}.", str(index), "value"))
        if tag.key in seen:
            errors.append(_invalid(f"The tag key {tag.key!r} is given twice.", str(index), "key"))
        seen.add(tag.key)
    return errors


def add_tags(session: AsyncSession, account: Account, tags: Sequence[TagValue]) -> None:
    """Give a new account tags that were checked."""
    session.add_all(Tag(**_row(account, tag)) for tag in tags)


async def replace_tags(session: AsyncSession, account: Account, tags: Sequence[TagValue]) -> bool:
    """Give the account these tags, which were checked, instead of its own; False when they are the same."""
    if await _present(session, account) == {tag.key: tag.value for tag in tags}:
        return False
    await session.execute(delete(Tag).where(*_of(account)))
    add_tags(session, account, tags)
    await _note_change(session, account)
    return True


async def set_tags(session: AsyncSession, account: Account, tags: Sequence[TagValue]) -> bool:
    """Give the account, which is locked, these tags besides its own; False when it has them all already.

    Raises Refused with every fault: VALIDATION, also when the account would have more than MOST_TAGS.
    """
    if errors := tag_errors(tags):
        raise Refused(*errors)
    present = await _present(session, account)
    changed = [tag for tag in tags if present.get(tag.key) != tag.value]
    after = len(present.keys() | {tag.key for tag in tags})
    if len(present) < after and after > MOST_TAGS:
        raise refuse(
            UserErrorCode.VALIDATION,
            f"The account has {len(present)} tags and would have {after}; at most {MOST_TAGS} are allowed. Remove some "
            "with removeAccountTags first.",
            "tags",
        )
    if not changed:
        return False
    given = insert(Tag).values([_row(account, tag) for tag in changed])
    await session.execute(
        given.on_conflict_do_update(index_elements=[Tag.account_id, Tag.key], set_={"value": given.excluded.value})
    )
    await _note_change(session, account)
    return True


async def remove_tags(session: AsyncSession, account: Account, keys: Sequence[str]) -> bool:
    """Take the tags with these keys from the account, which is locked; False when it has none of them.

    Raises Refused: VALIDATION for a key that no tag can have.
    """
    if len(keys) > MOST_TAGS:
        message = f"There are {len(keys)} keys; an account has at most {MOST_TAGS} tags."
        raise refuse(UserErrorCode.VALIDATION, message, "keys")
    faults = [
        UserError(UserErrorCode.VALIDATION, f"A tag key has 1 to {KEY_LENGTH} {_ALLOWED}.", ("keys", str(index)))
        for index, key in enumerate(keys)
        if not _is_key(key)
    ]
    if faults:
        raise Refused(*faults)
    removed = delete(Tag).where(*_of(account), Tag.key.in_(keys)).returning(Tag.key)
    if not (await session.scalars(removed.execution_options(synchronize_session=False))).all():
        return False
    await _note_change(session, account)
    return True


async def _present(session: AsyncSession, account: Account) -> Mapping[str, str]:
    rows = await session.execute(select(Tag.key, Tag.value).where(*_of(account)))
    return {row.key: row.value for row in rows}


async def _note_change(session: AsyncSession, account: Account) -> None:
    """That its tags are others is a change of the account, whose own columns are the same."""
    account.updated_at = (await session.execute(select(func.now()))).scalar_one()
    await session.flush()


def _of(account: Account) -> tuple[ColumnElement[bool], ...]:
    return Tag.tenancy_id == account.tenancy_id, Tag.account_id == account.id


def _row(account: Account, tag: TagValue) -> dict[str, object]:
    return {"tenancy_id": account.tenancy_id, "account_id": account.id, "key": tag.key, "value": tag.value}


def _is_key(key: str) -> bool:
    return 1 <= len(key) <= KEY_LENGTH and TEXT.fullmatch(key) is not None


def _key_fault(key: str) -> str | None:
    if not _is_key(key):
        return f"A tag key has 1 to {KEY_LENGTH} {_ALLOWED}."
    if key.lower().startswith(RESERVED):
        return f"Tag keys that begin with {RESERVED} are AWS's own; choose another."
    return None


def _invalid(message: str, *field: str) -> UserError:
    return UserError(UserErrorCode.VALIDATION, message, ("tags", *field))
