"""Setups of accounts that only bring governance in line: which are due, and how one begins."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.access.models import WITHDRAWAL, AccessState, AccountAccess
from server.accounts.models import Account, AccountStatus
from server.assurance.models import LIVE, Setup, SetupKind, SetupStatus, Stage, StageDefinition, StageStatus
from server.assurance.service import begin_setup, lock_latest_setup, repeat_stage

_IS_WITHDRAWN = exists().where(AccountAccess.account_id == Account.id, AccountAccess.state == AccessState.REMOVING)
_IS_DUE = (
    Account.governance_due_at <= func.now(),
    Account.aws_account_id.is_not(None),
    # An account that never was ACTIVE gets its access from the setup that failed; who lost it is not to wait for that.
    or_(Account.status == AccountStatus.ACTIVE, and_(Account.status == AccountStatus.ERROR, _IS_WITHDRAWN)),
)


async def due_accounts(session: AsyncSession, most: int) -> Sequence[tuple[UUID, UUID]]:
    """The tenancy and the id of accounts for which `govern` has something to do, the longest due first."""
    # A worker of an older version declares no stage that governs.
    declared = exists().where(StageDefinition.governs, Account.role == func.any(StageDefinition.roles))
    of_account = Setup.account_id == Account.id
    withdrawal = exists().where(
        Stage.setup_id == Setup.id, Stage.name == WITHDRAWAL, Stage.status == StageStatus.COMPLETED
    )
    waiting = exists().where(of_account, Setup.status == SetupStatus.WAITING, withdrawal)
    free = ~exists().where(of_account, Setup.status.in_(LIVE))
    due = (
        select(Account.tenancy_id, Account.id)
        .where(*_IS_DUE, or_(free, and_(_IS_WITHDRAWN, waiting)), declared)
        .order_by(Account.governance_due_at, Account.id)
        .limit(most)
    )
    return [(row.tenancy_id, row.id) for row in await session.execute(due)]


async def govern(session: AsyncSession, tenancy_id: UUID, account_id: UUID) -> bool:
    """Begin a GOVERN setup of the account; False when there is nothing to do, or another setup is live.

    A live one that waits, perhaps for long, first removes the roles of who has lost access since it has done so.
    """
    # The setup first, as everybody locks them.
    latest = await lock_latest_setup(session, tenancy_id, account_id)
    found = select(Account, _IS_WITHDRAWN).where(Account.tenancy_id == tenancy_id, Account.id == account_id, *_IS_DUE)
    row = (await session.execute(found.with_for_update(of=Account, key_share=True))).one_or_none()
    if row is None:
        return False
    account, is_withdrawn = row
    if latest is not None and latest.status in LIVE:
        return is_withdrawn and await repeat_stage(session, latest, WITHDRAWAL)
    await begin_setup(session, account, SetupKind.GOVERN)
    return True
