"""Setups of accounts that only bring governance in line: which are due, and how one begins."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.models import Account, AccountStatus
from server.assurance.models import LIVE, Setup, SetupKind, StageDefinition
from server.assurance.service import begin_setup, lock_latest_setup

_IS_DUE = (
    Account.governance_due_at <= func.now(),
    Account.status == AccountStatus.ACTIVE,
    Account.aws_account_id.is_not(None),
)


async def due_accounts(session: AsyncSession, most: int) -> Sequence[tuple[UUID, UUID]]:
    """The tenancy and the id of accounts that wait for a GOVERN setup and can have one, the longest due first."""
    # A worker of an older version declares no stage that governs.
    declared = exists().where(StageDefinition.governs, Account.role == func.any(StageDefinition.roles))
    due = (
        select(Account.tenancy_id, Account.id)
        .where(*_IS_DUE, ~exists().where(Setup.account_id == Account.id, Setup.status.in_(LIVE)), declared)
        .order_by(Account.governance_due_at, Account.id)
        .limit(most)
    )
    return [(row.tenancy_id, row.id) for row in await session.execute(due)]


async def govern(session: AsyncSession, tenancy_id: UUID, account_id: UUID) -> bool:
    """Begin a GOVERN setup of the account; False when it is no longer due, or another setup is live."""
    # The setup first, as everybody locks them.
    latest = await lock_latest_setup(session, tenancy_id, account_id)
    found = select(Account).where(Account.tenancy_id == tenancy_id, Account.id == account_id, *_IS_DUE)
    account = (await session.scalars(found.with_for_update(key_share=True))).one_or_none()
    if account is None or (latest is not None and latest.status in LIVE):
        return False
    await begin_setup(session, account, SetupKind.GOVERN)
    return True
