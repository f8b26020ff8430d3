"""Which accounts governance has something to do for in AWS, and whether their tags are among that."""

from collections.abc import Collection
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, exists, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.models import GONE, Account, PropagatedTag, Tag
from server.jobs import Job, enqueue
from server.tenancies.models import Tenancy


async def make_governance_due(session: AsyncSession, tenancy_id: UUID, account_ids: Collection[UUID]) -> None:
    """Ask for a setup of each of the accounts that brings AWS in line; one that is not in AWS yet has its own."""
    due = (
        update(Account)
        .where(
            Account.tenancy_id == tenancy_id,
            Account.id == any_(literal([*account_ids], ARRAY(Uuid()))),
            Account.aws_account_id.is_not(None),
        )
        .values(governance_due_at=func.now(), updated_at=Account.updated_at)
        .execution_options(synchronize_session=False)
    )
    await session.execute(due)
    await enqueue(session, tenancy_id, Job.GOVERN_ACCOUNTS, tenancy_id, attempt=uuid4().hex)


async def hold_propagation(session: AsyncSession, tenancy_id: UUID) -> None:
    """Until the transaction ends nobody switches the propagation of tags, so that no change of them is overlooked.

    Taken before any row is locked, by whoever changes tags of an account that AWS may have.
    """
    await session.execute(select(func.pg_advisory_xact_lock_shared(_key(tenancy_id))))


async def propagate_tags(session: AsyncSession, account: Account) -> None:
    """Have the account's tags, which have changed, brought to AWS if the tenancy wants that; see `hold_propagation`."""
    wanted = select(Tenancy.propagate_tags).where(Tenancy.id == account.tenancy_id)
    if await session.scalar(wanted):
        await make_governance_due(session, account.tenancy_id, [account.id])


async def switch_propagation(session: AsyncSession, tenancy_id: UUID, *, on: bool) -> bool:
    """Have tags brought to AWS from now on, or those removed there that were. Returns whether it was the other way.

    Every account that has tags, or had some brought to AWS, is due then.
    """
    await session.execute(select(func.pg_advisory_xact_lock(_key(tenancy_id))))
    tenancy = await session.get_one(Tenancy, tenancy_id)
    if tenancy.propagate_tags is on:
        return False
    concerned = (
        select(Account.id)
        .where(
            Account.tenancy_id == tenancy_id,
            Account.status.not_in(GONE),
            or_(
                exists().where(Tag.tenancy_id == tenancy_id, Tag.account_id == Account.id),
                exists().where(PropagatedTag.tenancy_id == tenancy_id, PropagatedTag.account_id == Account.id),
            ),
        )
        .order_by(Account.id)
        .with_for_update(key_share=True)
    )
    await make_governance_due(session, tenancy_id, (await session.scalars(concerned)).all())
    tenancy.propagate_tags = on
    await session.flush()
    return True


def _key(tenancy_id: UUID) -> ColumnElement[int]:
    return func.hashtextextended(f"tag propagation {tenancy_id}", 0)
