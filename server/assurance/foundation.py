"""The foundation of a tenancy: its management account, whose setup makes the organization, and Security and Logging."""

from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.account_types.service import FOUNDATION, MANAGEMENT, create_account_type
from server.accounts.models import Account, AccountOrigin, AccountRole, AccountStatus
from server.accounts.service import SYSTEM, add_account
from server.assurance.models import Setup, SetupKind
from server.assurance.service import begin_setup, record_change
from server.policies.foundation import keep_managed
from server.tenancies.models import Tenancy


async def bootstrap_tenancy(session: AsyncSession, tenancy: Tenancy) -> Account:
    """Begin the tenancy's bootstrap: its foundation accounts, the managed policies, and the setup of the management
    account, which is returned.

    That setup makes the organization and its units, then begins the setups of Security and Logging; the tenancy is
    ACTIVE when all three accounts are. Raises Refused: NOT_READY when no worker has ever started.
    """
    root = await create_account_type(session, tenancy.id, MANAGEMENT, foundation=True)
    foundation = await create_account_type(session, tenancy.id, FOUNDATION, foundation=True)
    management = await add_account(
        session,
        SYSTEM,
        tenancy,
        root,
        name="Management",
        role=AccountRole.MANAGEMENT,
        origin=AccountOrigin.ONBOARDED,
    )
    management.status = AccountStatus.ONBOARDING
    # Added now, so that nobody takes their names; in AWS they are made when there is an organization.
    for role, name in ((AccountRole.SECURITY, "Security"), (AccountRole.LOGGING, "Logging")):
        account = await add_account(session, SYSTEM, tenancy, foundation, name=name, role=role)
        await record_change(session, account, None)
    await keep_managed(session, tenancy.id)
    await begin_setup(session, management, SetupKind.ONBOARD)
    return management


async def request_foundation_accounts(session: AsyncSession, tenancy_id: UUID) -> None:
    """Begin the setup of each of Security and Logging that has none yet."""
    accounts = await session.scalars(
        select(Account).where(
            Account.tenancy_id == tenancy_id,
            Account.role.in_((AccountRole.SECURITY, AccountRole.LOGGING)),
            ~exists().where(Setup.account_id == Account.id),
        )
    )
    for account in accounts.all():
        await begin_setup(session, account, SetupKind.CREATE)
