"""The rules of access: a group's roles on account types, and what follows of them in each account.

What is wanted is a row of `account_access` for every IAM role; a setup makes AWS so, and `governance_due_at` of the
account asks for one. A grant reaches the accounts that its type has then, and those that join it unless it says
otherwise. Locks are taken in the order accounts, account type, groups: who creates or moves an account writes its row
and only then that of its type, in a trigger.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias
from uuid import UUID

from sqlalchemy import and_, case, delete, exists, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.access.models import ACCOUNT, AccessCause, AccessGrant, AccessRole, AccessState, AccountAccess, Group
from server.account_types.models import AccountType
from server.account_types.service import MANAGEMENT, usable
from server.accounts.governance import make_governance_due
from server.accounts.models import GONE, Account
from server.errors import Refused, UserError, UserErrorCode, refuse
from server.tenancies.models import Tenancy
from server.tenancies.service import partition

MOST_GRANTS = 100
# So many roles in accounts are written in a second or so, for which all accounts of the type are locked.
MOST_ROLES = 20_000
# https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_job-functions.html
POLICIES = {
    AccessRole.ADMIN: "AdministratorAccess",
    AccessRole.DEVELOPER: "job-function/SystemAdministrator",
    AccessRole.READONLY: "ReadOnlyAccess",
}
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
POLICY_ARN = re.compile(
    r"arn:(?P<partition>[a-z-]+):iam::(aws|\{account\}):policy/(?P<path>(?:[!-.0-z|~]+/)*)[\w+=,.@-]{1,128}", re.A
)
POLICY_ARN_LENGTH = 2048
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreatePolicy.html; it begins with the slash before it.
POLICY_PATH_LENGTH = 512
# A role of a group on a type, and in an account of it.
Key: TypeAlias = tuple[UUID, AccessRole]

_KEY = ("account_id", "group_id", "role")
_COLUMNS = (*_KEY, "tenancy_id", "account_type_id", "managed_policy_arn", "cause", "state")


@dataclass(frozen=True, slots=True)
class Grant:
    """A role for a group. Without an ARN it has AWS's own policy of the role."""

    group_id: UUID
    role: AccessRole
    managed_policy_arn: str | None = None
    apply_to_new_accounts: bool = True


@dataclass(frozen=True, slots=True)
class Revocation:
    """A role taken from a group, or every role that it has on the type."""

    group_id: UUID
    role: AccessRole | None = None


async def set_account_type_access(
    session: AsyncSession,
    tenancy_id: UUID,
    account_type_id: UUID,
    grants: Sequence[Grant] = (),
    revoke: Sequence[Revocation] = (),
) -> None:
    """Change who has which role on an account type, and in all accounts that it has now.

    A grant that is there already is given anew: with the policy and the rule for later accounts of now, and to those
    that joined without it. Raises Refused, changing nothing: NOT_FOUND, VALIDATION, PROTECTED.
    """
    _check_number(grants, revoke)
    region = (await session.execute(select(Tenancy.home_region).where(Tenancy.id == tenancy_id))).scalar_one()
    granted = _checked(grants, region)
    await _lock_accounts(session, tenancy_id, account_type_id)
    account_type = await _account_type(session, tenancy_id, account_type_id)
    _check_reach(account_type, grants)
    await _check_groups(session, tenancy_id, grants, revoke)
    revoked = await _checked_revocations(session, account_type, granted, revoke)
    changed: set[UUID] = set()
    if revoked:
        changed |= await _revoke(session, account_type, revoked)
    if granted:
        changed |= await _grant(session, account_type, list(granted.values()))
    if changed:
        await make_governance_due(session, tenancy_id, changed)


async def join_account_type(session: AsyncSession, account: Account) -> None:
    """Give an account that has just come to its type what the type grants, and take what an earlier type did.

    Called after the account's row is written. What an account that is not in AWS loses is forgotten at once.
    """
    grants = (
        AccessGrant.tenancy_id == account.tenancy_id,
        AccessGrant.account_type_id == account.account_type_id,
        AccessGrant.apply_to_new_accounts.is_(True),
    )
    mine = and_(AccountAccess.tenancy_id == account.tenancy_id, AccountAccess.account_id == account.id)
    kept = exists().where(
        *grants, AccessGrant.group_id == AccountAccess.group_id, AccessGrant.role == AccountAccess.role
    )
    if account.aws_account_id is None:
        await session.execute(delete(AccountAccess).where(mine, ~kept).execution_options(synchronize_session=False))
    else:
        await session.execute(
            update(AccountAccess)
            .where(mine, ~kept, AccountAccess.state != AccessState.REMOVING)
            .values(state=AccessState.REMOVING, cause=AccessCause.LEFT, error=None)
            .execution_options(synchronize_session=False)
        )
    rows = select(
        literal(account.id),
        AccessGrant.group_id,
        AccessGrant.role,
        AccessGrant.tenancy_id,
        AccessGrant.account_type_id,
        AccessGrant.managed_policy_arn,
        literal(AccessCause.JOINED.value),
        literal(AccessState.PENDING.value),
    ).where(*grants)
    given = insert(AccountAccess).from_select(_COLUMNS, rows)
    as_before = and_(
        AccountAccess.state == AccessState.ACTIVE,
        AccountAccess.managed_policy_arn == given.excluded.managed_policy_arn,
    )
    await session.execute(
        given.on_conflict_do_update(
            index_elements=_KEY,
            set_={
                **{name: given.excluded[name] for name in ("account_type_id", "managed_policy_arn", "cause")},
                # The role that two types have in common stays as it is in AWS.
                "state": case((as_before, AccountAccess.state), else_=AccessState.PENDING.value),
                "error": None,
                "changed_at": func.now(),
            },
        )
    )


async def forget_account(session: AsyncSession, account: Account) -> None:
    """Nobody has access to an account that there is not."""
    await session.execute(
        delete(AccountAccess).where(
            AccountAccess.tenancy_id == account.tenancy_id, AccountAccess.account_id == account.id
        )
    )


async def _revoke(session: AsyncSession, account_type: AccountType, keys: Sequence[Key]) -> set[UUID]:
    """Take the roles away; returns the accounts in which AWS has some of them still."""
    of_grant = tuple_(AccessGrant.group_id, AccessGrant.role).in_(keys)
    await session.execute(
        delete(AccessGrant)
        .where(AccessGrant.account_type_id == account_type.id, of_grant)
        .execution_options(synchronize_session=False)
    )
    given = (
        AccountAccess.account_type_id == account_type.id,
        tuple_(AccountAccess.group_id, AccountAccess.role).in_(keys),
        AccountAccess.state != AccessState.REMOVING,
    )
    nowhere = exists().where(Account.id == AccountAccess.account_id, Account.aws_account_id.is_(None))
    await session.execute(delete(AccountAccess).where(*given, nowhere).execution_options(synchronize_session=False))
    removing = (
        update(AccountAccess)
        .where(*given)
        .values(state=AccessState.REMOVING, cause=AccessCause.REVOKED, error=None)
        .returning(AccountAccess.account_id)
        .execution_options(synchronize_session=False)
    )
    return set(await session.scalars(removing))


async def _grant(session: AsyncSession, account_type: AccountType, grants: Sequence[Grant]) -> set[UUID]:
    """Write the grants down, and what they mean in each account of the type; returns where AWS is behind now."""
    granted = insert(AccessGrant).values(
        [
            {
                "account_type_id": account_type.id,
                "group_id": grant.group_id,
                "role": grant.role,
                "tenancy_id": account_type.tenancy_id,
                "managed_policy_arn": grant.managed_policy_arn,
                "apply_to_new_accounts": grant.apply_to_new_accounts,
            }
            for grant in grants
        ]
    )
    new = ("managed_policy_arn", "apply_to_new_accounts")
    await session.execute(
        granted.on_conflict_do_update(
            index_elements=("account_type_id", "group_id", "role"),
            set_={name: granted.excluded[name] for name in new},
        )
    )
    rows = (
        select(
            Account.id,
            AccessGrant.group_id,
            AccessGrant.role,
            AccessGrant.tenancy_id,
            AccessGrant.account_type_id,
            AccessGrant.managed_policy_arn,
            literal(AccessCause.GRANTED.value),
            literal(AccessState.PENDING.value),
        )
        .join(AccessGrant, AccessGrant.account_type_id == Account.account_type_id)
        .where(
            Account.tenancy_id == account_type.tenancy_id,
            Account.account_type_id == account_type.id,
            Account.status.not_in(GONE),
            tuple_(AccessGrant.group_id, AccessGrant.role).in_([(grant.group_id, grant.role) for grant in grants]),
        )
    )
    given = insert(AccountAccess).from_select(_COLUMNS, rows)
    differs = or_(
        AccountAccess.state.in_((AccessState.REMOVING, AccessState.FAILED)),
        AccountAccess.managed_policy_arn != given.excluded.managed_policy_arn,
    )
    written = given.on_conflict_do_update(
        index_elements=_KEY,
        set_={
            **{name: given.excluded[name] for name in _COLUMNS[len(_KEY) :]},
            "error": None,
            "changed_at": func.now(),
        },
        where=differs,
    ).returning(AccountAccess.account_id)
    return set(await session.scalars(written.execution_options(synchronize_session=False)))


async def _lock_accounts(session: AsyncSession, tenancy_id: UUID, account_type_id: UUID) -> None:
    of_type = (Account.tenancy_id == tenancy_id, Account.account_type_id == account_type_id)
    await session.execute(select(Account.id).where(*of_type).order_by(Account.id).with_for_update(key_share=True))


async def _account_type(session: AsyncSession, tenancy_id: UUID, account_type_id: UUID) -> AccountType:
    """The type, locked: whoever creates or moves an account into it waits, or is waited for."""
    found = select(AccountType).where(AccountType.tenancy_id == tenancy_id, AccountType.id == account_type_id)
    account_type = (await session.scalars(found.with_for_update(key_share=True))).one_or_none()
    account_type = usable(account_type, "accountTypeId")
    if account_type.foundation and account_type.name == MANAGEMENT:
        raise refuse(
            UserErrorCode.PROTECTED,
            "Freehold makes no roles in the management account of the organization; grant access there in AWS.",
            "accountTypeId",
        )
    return account_type


def _check_number(grants: Sequence[Grant], revoke: Sequence[Revocation]) -> None:
    for name, number in (("grants", len(grants)), ("revoke", len(revoke))):
        if number > MOST_GRANTS:
            message = f"{name} has {number} entries; at most {MOST_GRANTS} are taken at a time."
            raise refuse(UserErrorCode.VALIDATION, message, name)


def _check_reach(account_type: AccountType, grants: Sequence[Grant]) -> None:
    """A single grant is always taken."""
    most = max(1, MOST_ROLES // max(1, account_type.account_count))
    if len(grants) > most:
        message = (
            f"The account type {account_type.name!r} has {account_type.account_count} accounts, so that at most {most} "
            f"grants are taken at a time; there are {len(grants)}."
        )
        raise refuse(UserErrorCode.VALIDATION, message, "grants")


async def _check_groups(
    session: AsyncSession, tenancy_id: UUID, grants: Sequence[Grant], revoke: Sequence[Revocation]
) -> None:
    """Raise Refused unless every group is there, which then cannot be deleted before the transaction ends."""
    asked: tuple[tuple[str, Sequence[Grant | Revocation]], ...] = (("grants", grants), ("revoke", revoke))
    named = {each.group_id for _, given in asked for each in given}
    found = select(Group.id).where(Group.tenancy_id == tenancy_id, Group.id.in_(named)).order_by(Group.id)
    there = set(await session.scalars(found.with_for_update(read=True, key_share=True)))
    missing = [
        UserError(UserErrorCode.NOT_FOUND, "There is no group with this id.", (name, str(index), "groupId"))
        for name, given in asked
        for index, each in enumerate(given)
        if each.group_id not in there
    ]
    if missing:
        raise Refused(*missing)


def _checked(grants: Sequence[Grant], region: str) -> dict[Key, Grant]:
    """The grants with an ARN each. Raises Refused: VALIDATION for every one that is wrong or given twice."""
    checked: dict[Key, Grant] = {}
    errors: list[UserError] = []
    for index, grant in enumerate(grants):
        where = ("grants", str(index))
        key = grant.group_id, grant.role
        if key in checked:
            message = f"The role {grant.role} is granted to this group twice."
            errors.append(UserError(UserErrorCode.VALIDATION, message, (*where, "role")))
        default = f"arn:{partition(region)}:iam::aws:policy/{POLICIES[grant.role]}"
        arn = default if grant.managed_policy_arn is None else grant.managed_policy_arn
        match = POLICY_ARN.fullmatch(arn)
        is_arn = match is not None and match["partition"] == partition(region)
        if not is_arn or len(arn) > POLICY_ARN_LENGTH or (match and len(match["path"]) >= POLICY_PATH_LENGTH):
            message = (
                f"A managed policy is one of AWS's, arn:{partition(region)}:iam::aws:policy/ReadOnlyAccess, or one "
                f"that each account has, arn:{partition(region)}:iam::{ACCOUNT}:policy/Name, where {ACCOUNT} stands "
                "for the number of the account."
            )
            errors.append(UserError(UserErrorCode.VALIDATION, message, (*where, "managedPolicyArn")))
        checked[key] = replace(grant, managed_policy_arn=arn)
    if errors:
        raise Refused(*errors)
    return checked


async def _checked_revocations(
    session: AsyncSession, account_type: AccountType, granted: Mapping[Key, Grant], revoke: Sequence[Revocation]
) -> list[Key]:
    """The roles to take away. Raises Refused: NOT_FOUND for one that the group does not have, VALIDATION."""
    present = select(AccessGrant.group_id, AccessGrant.role).where(AccessGrant.account_type_id == account_type.id)
    there = [(row.group_id, row.role) for row in await session.execute(present)]
    keys: list[Key] = []
    errors: list[UserError] = []
    for index, revocation in enumerate(revoke):
        where = ("revoke", str(index))
        found = [key for key in there if key[0] == revocation.group_id and revocation.role in (None, key[1])]
        if not found:
            what = "no role" if revocation.role is None else f"not the role {revocation.role}"
            message = f"The group has {what} on the account type {account_type.name!r}."
            errors.append(UserError(UserErrorCode.NOT_FOUND, message, where))
        if any(key in granted for key in found):
            message = "A role that is granted in the same call is not revoked in it; leave one of the two out."
            errors.append(UserError(UserErrorCode.VALIDATION, message, where))
        keys += found
    if errors:
        raise Refused(*errors)
    return keys
