"""What the command line does to the database itself, as the role `freehold_worker`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.account_types.models import AccountType
from server.accounts.models import Account
from server.accounts.service import check_email_template
from server.assurance.foundation import bootstrap_tenancy
from server.config import Settings
from server.database import create_engine, transaction
from server.errors import FreeholdError
from server.identity.models import ApiToken, Role
from server.identity.service import create_token, revoke_token
from server.roles import WORKER
from server.tenancies.models import Tenancy
from server.tenancies.service import DEFAULT_REGIONS, create_tenancy

# Any number that nothing else in the database uses: tenancies are opened one after the other.
TENANCY_LOCK = 0x74656E61


@asynccontextmanager
async def session_for(settings: Settings) -> AsyncIterator[AsyncSession]:
    engine = create_engine(settings.require(WORKER.setting), WORKER, pool_size=1, command_seconds=20)
    try:
        async with transaction(engine) as session:
            yield session
    finally:
        await engine.dispose()


async def find_tenancy(session: AsyncSession, name: str) -> Tenancy:
    """The tenancy by its name; raises FreeholdError, naming those there are."""
    tenancies = {each.name: each for each in await session.scalars(select(Tenancy).order_by(Tenancy.name))}
    if name not in tenancies:
        raise FreeholdError(f"there is no tenancy {name!r}; there are: {', '.join(tenancies) or 'none'}")
    return tenancies[name]


async def open_tenancy(
    settings: Settings,
    *,
    name: str,
    email_template: str,
    security_contact: tuple[str, str, str],
    home_region: str = "us-east-1",
    regions: Sequence[str] = (),
    another: bool = False,
) -> Tenancy:
    """Create a tenancy and begin its bootstrap.

    Raises, with nothing created, Refused when an input is wrong, and FreeholdError when there is a tenancy already:
    `another` opens one beside it, which gets no organization from workers that serve the first.
    """
    check_email_template(email_template)
    async with session_for(settings) as session:
        await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": TENANCY_LOCK})
        if not another:
            await _require_no_tenancy(session, name)
        tenancy = await create_tenancy(
            session,
            name=name,
            email_template=email_template,
            security_contact=security_contact,
            home_region=home_region,
            regions=tuple(regions) or DEFAULT_REGIONS,
        )
        await bootstrap_tenancy(session, tenancy)
    return tenancy


async def _require_no_tenancy(session: AsyncSession, name: str) -> None:
    there = list(await session.scalars(select(Tenancy.name).order_by(Tenancy.created_at)))
    if name in there or not there:
        # The rules of tenancies say that the name is in use.
        return
    raise FreeholdError(
        f"there is the tenancy {there[0]!r} already. The workers have the credentials of one AWS organization, and a "
        f"tenancy is an organization: the bootstrap of {name!r} would find that of {there[0]!r} and fail. Use "
        f"{there[0]!r}, or run another installation for {name!r}. To open it here all the same, for instance because "
        f"{there[0]!r} never got an organization, add --another."
    )


@dataclass(frozen=True, slots=True)
class Recounted:
    """A counter that was wrong: of which tenancy and type, what it held and what it holds now."""

    tenancy: str
    account_type: str
    kept: int
    counted: int


async def recount_accounts(settings: Settings, report: Callable[[Recounted], None]) -> None:
    """Put right the counters of accounts that are wrong, by tenancy and type, and report each as soon as it is.

    Each is a transaction of its own, in which whoever creates or moves accounts of that type waits.
    """
    number = select(func.count()).where(Account.account_type_id == AccountType.id).scalar_subquery()
    async with session_for(settings) as session:
        # A counter and its accounts are seen as of one moment, so nothing is locked to find what differs.
        differ = (
            await session.execute(
                select(Tenancy.name, AccountType.id)
                .join(AccountType, AccountType.tenancy_id == Tenancy.id)
                .where(AccountType.account_count != number)
                .order_by(Tenancy.name, AccountType.name)
            )
        ).all()
    for name, type_id in differ:
        mended = await _recount(settings, name, type_id)
        if mended is not None:
            report(mended)


async def _recount(settings: Settings, tenancy_name: str, type_id: UUID) -> Recounted | None:
    """None when the type has gone or its counter is right after all."""
    async with session_for(settings) as session:
        await session.execute(text("SET LOCAL lock_timeout = '10s'"))
        # The triggers that count wait at this lock, so the statement after it sees all that has been counted.
        locked = select(AccountType).where(AccountType.id == type_id).with_for_update(key_share=True)
        account_type = (await session.scalars(locked)).one_or_none()
        counted = await session.scalar(select(func.count()).where(Account.account_type_id == type_id))
        if account_type is None or counted is None or counted == account_type.account_count:
            return None
        kept, account_type.account_count = account_type.account_count, counted
        return Recounted(tenancy_name, account_type.name, kept, counted)


async def issue_token(
    settings: Settings, tenancy_name: str, name: str, role: str, lifetime: timedelta | None = None
) -> str:
    """Create a token and return its secret. Raises Refused, or FreeholdError for an unknown tenancy."""
    expires_at = None if lifetime is None else datetime.now(UTC) + lifetime
    async with session_for(settings) as session:
        tenancy = await find_tenancy(session, tenancy_name)
        _, secret = await create_token(session, tenancy.id, name, Role(role), expires_at)
    return secret


async def live_tokens(settings: Settings, tenancy_name: str) -> Sequence[ApiToken]:
    """The tokens that can sign in now, oldest first."""
    async with session_for(settings) as session:
        tenancy = await find_tenancy(session, tenancy_name)
        return (
            await session.scalars(
                select(ApiToken)
                .where(
                    ApiToken.tenancy_id == tenancy.id,
                    ApiToken.revoked_at.is_(None),
                    or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > func.now()),
                )
                .order_by(ApiToken.created_at, ApiToken.id)
            )
        ).all()


async def withdraw_token(settings: Settings, tenancy_name: str, name: str) -> None:
    """Revoke the live token of that name; raises FreeholdError when there is none."""
    async with session_for(settings) as session:
        tenancy = await find_tenancy(session, tenancy_name)
        token_id = await session.scalar(
            select(ApiToken.id).where(
                ApiToken.tenancy_id == tenancy.id, ApiToken.name == name, ApiToken.revoked_at.is_(None)
            )
        )
        if token_id is None:
            raise FreeholdError(f"the tenancy {tenancy_name!r} has no live token {name!r}")
        await revoke_token(session, tenancy.id, token_id)
