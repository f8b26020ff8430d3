"""The rules of groups and users: names, e-mails, who is in which group, and when one may go."""

import re
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.access.models import AccessGrant, AccountAccess, Group, Membership, User
from server.accounts.service import EMAIL, hyphenated
from server.errors import Refused, UserError, UserErrorCode, refuse

GROUP_NAME_LENGTHS = range(2, 65)
GROUP_NAME = re.compile(r"[a-zA-Z0-9+\-=._:/@ ]+")
USER_NAME_LENGTH = 128
# RFC 5321, section 4.5.3.1.3: a path of 256 octets, less its angle brackets.
EMAIL_LENGTHS = range(6, 255)
MOST_MEMBERS = 100
# What is left of the 64 characters of an IAM role's name after `freehold-developer-`.
SLUG_LENGTH = 45
SLUG_SUFFIX = 8

GROUP_NAME_IN_USE = UserError(UserErrorCode.NAME_IN_USE, "Another group has this name.", ("name",))
EMAIL_IN_USE = UserError(UserErrorCode.EMAIL_IN_USE, "Another user has this e-mail.", ("email",))
# What a unique constraint says when two requests meet in it after both have looked.
RACES: Mapping[str, UserError] = {"uq_user_group_name": GROUP_NAME_IN_USE, "uq_person_email": EMAIL_IN_USE}


async def create_group(session: AsyncSession, tenancy_id: UUID, name: str) -> Group:
    """Create a group without members. Raises Refused: VALIDATION, NAME_IN_USE."""
    await _check_group_name(session, tenancy_id, name)
    group_id: UUID = (await session.execute(select(func.uuidv7()))).scalar_one()
    group = Group(id=group_id, tenancy_id=tenancy_id, name=name, slug=_slug(name, group_id))
    session.add(group)
    await session.flush()
    return group


async def rename_group(session: AsyncSession, tenancy_id: UUID, group_id: UUID, name: str) -> Group:
    """Give the group another name; its IAM roles keep theirs. Raises Refused: NOT_FOUND, VALIDATION, NAME_IN_USE."""
    group = await _group(session, tenancy_id, group_id)
    await _check_group_name(session, tenancy_id, name, but=group_id)
    group.name = name
    await session.flush()
    return group


async def delete_group(session: AsyncSession, tenancy_id: UUID, group_id: UUID) -> None:
    """Delete a group that nothing is left of. Raises Refused: NOT_FOUND, GROUP_IN_USE with what is left."""
    group = await _group(session, tenancy_id, group_id)
    members, grants, roles = [
        (await session.execute(select(func.count()).select_from(table).where(table.group_id == group_id))).scalar_one()
        for table in (Membership, AccessGrant, AccountAccess)
    ]
    if members or grants:
        raise refuse(
            UserErrorCode.GROUP_IN_USE,
            f"The group {group.name!r} has members ({members}) or roles on account types ({grants}); remove these with "
            "removeGroupMembers and setAccountTypeAccess first.",
            "groupId",
        )
    if roles:
        raise refuse(
            UserErrorCode.GROUP_IN_USE,
            f"{roles} IAM roles of the group {group.name!r} are still being removed from accounts; try again when "
            "`access` of these accounts does not show it any more.",
            "groupId",
        )
    await session.delete(group)
    await session.flush()


async def create_user(session: AsyncSession, tenancy_id: UUID, name: str, email: str) -> User:
    """Add a user, in no group. Raises Refused: VALIDATION, EMAIL_IN_USE."""
    await _check_user(session, tenancy_id, name, email)
    user = User(tenancy_id=tenancy_id, name=name, email=email)
    session.add(user)
    await session.flush()
    return user


async def update_user(
    session: AsyncSession, tenancy_id: UUID, user_id: UUID, name: str | None, email: str | None
) -> User:
    """Change what is given of a user. Raises Refused: NOT_FOUND, VALIDATION, EMAIL_IN_USE."""
    user = await _user(session, tenancy_id, user_id)
    await _check_user(session, tenancy_id, name, email, but=user_id)
    user.name = user.name if name is None else name
    user.email = user.email if email is None else email
    await session.flush()
    return user


async def delete_user(session: AsyncSession, tenancy_id: UUID, user_id: UUID) -> None:
    """Delete a user, who leaves every group. Raises Refused: NOT_FOUND."""
    user = await _user(session, tenancy_id, user_id)
    await session.execute(delete(Membership).where(Membership.user_id == user_id))
    await session.delete(user)
    await session.flush()


async def add_group_members(session: AsyncSession, tenancy_id: UUID, group_id: UUID, user_ids: Sequence[UUID]) -> None:
    """Put users into a group; who is in it already stays. Raises Refused: NOT_FOUND, VALIDATION."""
    await _group(session, tenancy_id, group_id)
    await _check_users(session, tenancy_id, user_ids)
    if user_ids:
        rows = [{"tenancy_id": tenancy_id, "group_id": group_id, "user_id": user_id} for user_id in set(user_ids)]
        await session.execute(insert(Membership).values(rows).on_conflict_do_nothing())


async def remove_group_members(
    session: AsyncSession, tenancy_id: UUID, group_id: UUID, user_ids: Sequence[UUID]
) -> None:
    """Take users out of a group; who is not in it stays out. Raises Refused: NOT_FOUND, VALIDATION."""
    await _group(session, tenancy_id, group_id)
    await _check_users(session, tenancy_id, user_ids)
    await session.execute(delete(Membership).where(Membership.group_id == group_id, Membership.user_id.in_(user_ids)))


def _slug(name: str, group_id: UUID) -> str:
    """What ends the names of the group's IAM roles: unlike that of any other group, whatever the names."""
    stem = hyphenated(name, SLUG_LENGTH - SLUG_SUFFIX - 1) or "group"
    return f"{stem}-{group_id.hex[-SLUG_SUFFIX:]}"


async def _group(session: AsyncSession, tenancy_id: UUID, group_id: UUID) -> Group:
    """The group, locked: whoever gives it members or a role waits."""
    found = select(Group).where(Group.tenancy_id == tenancy_id, Group.id == group_id).with_for_update()
    group = (await session.scalars(found)).one_or_none()
    if group is None:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no group with this id.", "groupId")
    return group


async def _user(session: AsyncSession, tenancy_id: UUID, user_id: UUID) -> User:
    found = select(User).where(User.tenancy_id == tenancy_id, User.id == user_id).with_for_update()
    user = (await session.scalars(found)).one_or_none()
    if user is None:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no user with this id.", "userId")
    return user


async def _check_group_name(session: AsyncSession, tenancy_id: UUID, name: str, but: UUID | None = None) -> None:
    if len(name) not in GROUP_NAME_LENGTHS or name != name.strip(" ") or not GROUP_NAME.fullmatch(name):
        raise refuse(
            UserErrorCode.VALIDATION,
            "The name of a group has 2 to 64 letters, digits, + - = . _ : / @, and spaces between them.",
            "name",
        )
    same: list[ColumnElement[bool]] = [Group.tenancy_id == tenancy_id, func.lower(Group.name) == name.lower()]
    if but is not None:
        same.append(Group.id != but)
    if (await session.scalars(select(Group.id).where(*same))).first() is not None:
        raise Refused(GROUP_NAME_IN_USE)


async def _check_user(
    session: AsyncSession, tenancy_id: UUID, name: str | None, email: str | None, but: UUID | None = None
) -> None:
    errors = []
    if name is not None and not (name.strip() and len(name) <= USER_NAME_LENGTH and name.isprintable()):
        message = f"The name of a user has 1 to {USER_NAME_LENGTH} characters that can be printed."
        errors.append(UserError(UserErrorCode.VALIDATION, message, ("name",)))
    if email is not None and not (len(email) in EMAIL_LENGTHS and EMAIL.fullmatch(email)):
        message = "An e-mail has 6 to 254 ASCII characters and looks like name@example.com."
        errors.append(UserError(UserErrorCode.VALIDATION, message, ("email",)))
    if errors:
        raise Refused(*errors)
    if email is None:
        return
    same: list[ColumnElement[bool]] = [User.tenancy_id == tenancy_id, func.lower(User.email) == email.lower()]
    if but is not None:
        same.append(User.id != but)
    if (await session.scalars(select(User.id).where(*same))).first() is not None:
        raise Refused(EMAIL_IN_USE)


async def _check_users(session: AsyncSession, tenancy_id: UUID, user_ids: Sequence[UUID]) -> None:
    """Raise Refused unless every one is a user, who is then not deleted before the transaction ends."""
    if len(user_ids) > MOST_MEMBERS:
        raise refuse(
            UserErrorCode.VALIDATION,
            f"There are {len(user_ids)} users; at most {MOST_MEMBERS} are taken at a time.",
            "userIds",
        )
    found = select(User.id).where(User.tenancy_id == tenancy_id, User.id.in_(user_ids)).order_by(User.id)
    there = set(await session.scalars(found.with_for_update(read=True, key_share=True)))
    missing = [
        UserError(UserErrorCode.NOT_FOUND, "There is no user with this id.", ("userIds", str(index)))
        for index, user_id in enumerate(user_ids)
        if user_id not in there
    ]
    if missing:
        raise Refused(*missing)
