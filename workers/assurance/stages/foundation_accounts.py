"""The Security and Logging accounts requested, and everybody woken who waited for the organization."""

from collections.abc import Sequence

from sqlalchemy import select

from server.account_types.models import AccountType
from server.account_types.service import wake
from server.accounts.models import Account, AccountRole
from server.assurance.foundation import request_foundation_accounts
from server.assurance.models import Setup
from server.assurance.service import wake_waiting
from server.policies.service import wake_all
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, finding

ROLES = (AccountRole.SECURITY, AccountRole.LOGGING)


async def check(run: Run) -> Sequence[Finding]:
    requested = (
        select(Account.role)
        .join(Setup, Setup.account_id == Account.id)
        .where(Account.tenancy_id == run.tenancy.id, Account.role.in_(ROLES))
    )
    async with run.read() as session:
        found = set(await session.scalars(requested))
    return [
        finding(role in found, f"the {role} account is {'' if role in found else 'not '}requested") for role in ROLES
    ]


async def apply(run: Run) -> None:
    waiting_types = select(AccountType.id).where(
        AccountType.tenancy_id == run.tenancy.id,
        AccountType.foundation.is_(False),
        AccountType.organizational_unit_id.is_(None),
    )
    async with run.write() as session:
        await request_foundation_accounts(session, run.tenancy.id)
        await wake_waiting(session, run.tenancy.id)
        await wake_all(session, run.tenancy.id)
        # The first job of the types came before there was a place for their units.
        await wake(session, *(await session.scalars(waiting_types)).all())


STAGE = Stage(
    name="foundation_accounts",
    title="Security and Logging accounts",
    description="Begins the setups of the Security and Logging accounts, and wakes setups and policies that waited.",
    permissions=(),
    check=check,
    apply=apply,
    roles=(AccountRole.MANAGEMENT,),
)
