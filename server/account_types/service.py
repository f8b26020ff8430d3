"""The rules of account types."""

import re
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.account_types.models import AccountType
from server.errors import UserError, UserErrorCode, refuse
from server.jobs import Job, enqueue
from server.quotas.models import QuotaCode
from server.quotas.service import check_quota

NAME_LENGTHS = range(2, 65)
NAME = re.compile(r"[a-zA-Z0-9+\-=._:/@ ]+")

# The types that every tenancy has. The management account stays at the root of the organization: its type has no OU.
MANAGEMENT = "Management"
FOUNDATION = "Foundation"

NAME_IN_USE = UserError(UserErrorCode.NAME_IN_USE, "Another account type has this name.", ("name",))
RACES: Mapping[str, UserError] = {"uq_account_type_name": NAME_IN_USE}


async def create_account_type(
    session: AsyncSession, tenancy_id: UUID, name: str, *, foundation: bool = False
) -> AccountType:
    """Create an account type and the job that makes its OU. Raises Refused: VALIDATION, NAME_IN_USE, QUOTA_EXCEEDED."""
    if len(name.strip(" ")) not in NAME_LENGTHS or len(name) not in NAME_LENGTHS or not NAME.fullmatch(name):
        raise refuse(
            UserErrorCode.VALIDATION,
            "The name of an account type has 2 to 64 letters, digits, spaces and + - = . _ : / @.",
            "name",
        )
    others = select(AccountType.id).where(
        AccountType.tenancy_id == tenancy_id, func.lower(AccountType.name) == name.lower()
    )
    if (await session.scalars(others)).first() is not None:
        raise refuse(NAME_IN_USE.code, NAME_IN_USE.message, "name")
    if not foundation:
        await check_quota(session, tenancy_id, QuotaCode.ORGANIZATIONAL_UNITS)
    account_type = AccountType(tenancy_id=tenancy_id, name=name, foundation=foundation)
    session.add(account_type)
    await session.flush()
    if not foundation:
        await enqueue(session, tenancy_id, Job.CREATE_ORGANIZATIONAL_UNIT, account_type.id)
    return account_type
