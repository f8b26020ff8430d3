"""When an account type may go, and what of it goes at once: the roles that it grants.

What is attached to it stays in force until AWS has deleted its unit, which an account may be on its way out of.
"""

from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.access.models import AccessGrant
from server.account_types.models import AccountType, AccountTypeState
from server.account_types.service import refuse_foundation, wake
from server.accounts.models import GONE, Account
from server.errors import UserErrorCode, refuse
from server.leases import NO_ERROR, change


async def delete_account_type(session: AsyncSession, tenancy_id: UUID, account_type_id: UUID) -> UUID:
    """Have an account type deleted that has no accounts; one that is being deleted is tried again at once.

    Raises Refused, changing nothing: NOT_FOUND, PROTECTED, TYPE_IN_USE with the number of its accounts.
    """
    # Whoever creates or moves an account into it, attaches a policy to it or grants access waits, or is waited for.
    found = select(AccountType).where(AccountType.tenancy_id == tenancy_id, AccountType.id == account_type_id)
    account_type = (await session.scalars(found.with_for_update())).one_or_none()
    if account_type is None:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no account type with this id.", "accountTypeId")
    refuse_foundation(account_type, "deleted")
    if account_type.state is AccountTypeState.DELETED:
        return account_type.id
    count = await session.scalar(
        select(func.count()).where(
            Account.tenancy_id == tenancy_id,
            Account.account_type_id == account_type.id,
            Account.status.not_in(GONE),
        )
    )
    if count:
        raise refuse(
            UserErrorCode.TYPE_IN_USE,
            f"The account type {account_type.name!r} has {count} account{'' if count == 1 else 's'}; move "
            f"{'it to another type' if count == 1 else 'them to other types'} first.",
            "accountTypeId",
        )
    await session.execute(
        delete(AccessGrant)
        .where(AccessGrant.tenancy_id == tenancy_id, AccessGrant.account_type_id == account_type.id)
        .execution_options(synchronize_session=False)
    )
    change(account_type, state=AccountTypeState.DELETING, **NO_ERROR)
    await wake(session, account_type.id)
    return account_type.id
