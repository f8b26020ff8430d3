"""The rules of quotas: what the limits are, and that nothing is begun that would exceed one."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import TextClause, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from server.errors import UserErrorCode, refuse
from server.quotas.models import Quota, QuotaCode, QuotaReading
from server.quotas.use import ACCOUNTS_AT_MOST, LIMIT_OF, ON_TARGET, USED
from server.tenancies.models import Tenancy

# So far from a limit requests wait for each other no longer: more are not under way at a time.
NEAR = 200
MOST = 2**31 - 1
# How often AWS is asked for the limits, and when again after it has not answered.
READ_EVERY = timedelta(hours=1)
READ_AGAIN = timedelta(minutes=5)

# What there is of each, for messages.
NOUNS: Mapping[QuotaCode, str] = {
    QuotaCode.ACCOUNTS: "accounts in the organization, the management account and closed ones among them",
    QuotaCode.ORGANIZATIONAL_UNITS: "organizational units in the organization, Freehold's own among them",
    QuotaCode.POLICIES: "service control policies in the organization",
    QuotaCode.POLICIES_PER_TARGET: "service control policies on one target, AWS's FullAWSAccess among them",
    QuotaCode.POLICY_SIZE: "characters in a service control policy",
}


async def read_limit(session: AsyncSession, tenancy_id: UUID, code: QuotaCode) -> int | None:
    """How much there may be; None while nobody has told."""
    limit: int | None = await session.scalar(text(LIMIT_OF), {"tenancy": tenancy_id, "code": code.value})
    return limit


async def read_documented_limit(session: AsyncSession, tenancy_id: UUID, code: QuotaCode) -> int:
    """The same of a quota for which AWS documents a limit, so that there always is one."""
    limit = await read_limit(session, tenancy_id, code)
    assert limit is not None, f"{code} has a documented limit, and the tenancy is there"
    return limit


async def check_quota(
    session: AsyncSession,
    tenancy_id: UUID,
    code: QuotaCode,
    adding: int = 1,
    *,
    target: tuple[UUID | None, UUID | None] | None = None,
    field: Sequence[str] = (),
) -> None:
    """Raise Refused, QUOTA_EXCEEDED, when `adding` more than there are would exceed the limit.

    Called before the rows are added, in their transaction: near the limit others wait until it ends. Of
    POLICIES_PER_TARGET `target` is the id of an account type and that of an account, None for what it is not.
    """
    limit = await read_limit(session, tenancy_id, code)
    if limit is None:
        return
    if code is QuotaCode.ACCOUNTS and await _is_far(session, tenancy_id, limit - adding):
        return
    account_type_id, account_id = target or (None, None)
    used = text((ON_TARGET if target else f"select {USED[code]}").format(tenancy=":tenancy"))
    values: dict[str, UUID | None] = {"tenancy": tenancy_id}
    if target:
        values |= {"account_type_id": account_type_id, "account_id": account_id}
    key = f"quota {tenancy_id} {code} {account_type_id} {account_id}"
    if await _number(session, used, values) + adding <= limit - NEAR:
        return
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
    # What others have added before they let go of the lock.
    in_use = await _number(session, used, values)
    if in_use + adding > limit:
        raise refuse(
            UserErrorCode.QUOTA_EXCEEDED,
            f"The quota {code} is exceeded: at most {limit:,} {NOUNS[code]}; {in_use:,} are in use, and this would "
            f"add {adding:,}. Ask AWS Support for a higher limit. Freehold reads it from AWS within the hour, where "
            "AWS tells it; otherwise set it with setQuota.",
            *field,
        )


async def set_quota(session: AsyncSession, tenancy_id: UUID, code: QuotaCode, limit: int | None) -> None:
    """Set a limit that counts instead of what AWS tells; None goes back to that. Raises Refused: VALIDATION."""
    if limit is not None and not 1 <= limit <= MOST:
        raise refuse(UserErrorCode.VALIDATION, f"A limit is from 1 to {MOST:,}, not {limit:,}.", "limit")
    if limit is None:
        stays = update(Quota).where(Quota.tenancy_id == tenancy_id, Quota.code == code).values(set_limit=None)
        await session.execute(stays.execution_options(synchronize_session=False))
        return
    given = insert(Quota).values(tenancy_id=tenancy_id, code=code, set_limit=limit)
    await session.execute(
        given.on_conflict_do_update(index_elements=[Quota.tenancy_id, Quota.code], set_={"set_limit": limit})
    )


async def claim_readings(session: AsyncSession) -> Sequence[Tenancy]:
    """The tenancies whose limits are due to be read, for the one who asks: nobody else has them for READ_AGAIN."""
    now = func.now()
    organized = select(Tenancy.id, now + READ_AGAIN).where(Tenancy.aws_organization_id.is_not(None))
    claimed = insert(QuotaReading).from_select(["tenancy_id", "next_at"], organized)
    claimed = claimed.on_conflict_do_update(
        index_elements=[QuotaReading.tenancy_id],
        set_={"next_at": claimed.excluded.next_at},
        where=QuotaReading.next_at <= now,
    )
    mine = set(await session.scalars(claimed.returning(QuotaReading.tenancy_id)))
    return (await session.scalars(select(Tenancy).where(Tenancy.id.in_(mine)))).all()


async def keep_reading(session: AsyncSession, tenancy_id: UUID, limits: Mapping[QuotaCode, int]) -> None:
    """Write down what AWS has told, and that it is to be asked again in READ_EVERY; what it no longer tells goes."""
    untold = update(Quota).where(Quota.tenancy_id == tenancy_id, Quota.code.not_in(limits))
    untold = untold.values(aws_limit=None, read_at=None)
    await session.execute(untold.execution_options(synchronize_session=False))
    if limits:
        rows = [{"code": code, "aws_limit": limit} for code, limit in limits.items()]
        told = insert(Quota).values([{**row, "tenancy_id": tenancy_id, "read_at": func.now()} for row in rows])
        await session.execute(
            told.on_conflict_do_update(
                index_elements=[Quota.tenancy_id, Quota.code],
                set_={"aws_limit": told.excluded.aws_limit, "read_at": told.excluded.read_at},
            )
        )
    again = update(QuotaReading).where(QuotaReading.tenancy_id == tenancy_id).values(next_at=func.now() + READ_EVERY)
    await session.execute(again.execution_options(synchronize_session=False))


async def _is_far(session: AsyncSession, tenancy_id: UUID, limit: int) -> bool:
    """Whether the counters, which take no time to read, tell that the limit is far."""
    at_most = text(ACCOUNTS_AT_MOST.format(tenancy=":tenancy"))
    return await _number(session, at_most, {"tenancy": tenancy_id}) <= limit - NEAR


async def _number(session: AsyncSession, sql: TextClause, values: Mapping[str, object]) -> int:
    return int((await session.execute(sql, values)).scalar_one())
