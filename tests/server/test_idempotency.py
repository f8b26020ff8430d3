"""Keys under which a request is served once: what counts as the same request, and requests that meet."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.database import transaction
from server.errors import Refused, UserErrorCode, refuse
from server.idempotency import BATCH, KEPT, IdempotencyKey, Request, forget_expired, once
from tests.server.fixtures import NewTenant, Owner, Tenant, engine, new_tenant, owner, settings, tenant, worker_engine
from tests.server.waiting import until

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]

REQUEST = Request("createThing", {"name": "a"})


async def ask(
    engine: AsyncEngine,
    tenant: Tenant,
    work: Callable[[], Awaitable[UUID]],
    *,
    request: Request = REQUEST,
    key: str | None = "key",
) -> UUID:
    async with transaction(engine, tenant.tenancy_id) as session:
        return await once(session, tenant.tenancy_id, key, request, IdempotencyKey.account_id, work)


class Work:
    """Makes the tenant's account, as it were, and counts how often; waits in the middle for leave to go on."""

    def __init__(self, tenant: Tenant, *, refused: bool = False, held: bool = False) -> None:
        self.result, self.refused, self.done = tenant.account_id, refused, 0
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        if not held:
            self.may_end.set()

    async def __call__(self) -> UUID:
        self.begun.set()
        await self.may_end.wait()
        self.done += 1
        if self.refused:
            raise refuse(UserErrorCode.NAME_IN_USE, "Taken.", "name")
        return self.result


async def nothing() -> UUID:
    raise AssertionError("worked again")


async def waiting(owner: Owner, number: int) -> None:
    """Wait until so many requests stand behind the transaction that has the key."""

    async def blocked() -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        return bool(await owner.fetchval(query) == number)

    await until(blocked)


async def test_without_a_key_every_request_is_served(engine: AsyncEngine, tenant: Tenant) -> None:
    work = Work(tenant)
    for _ in range(2):
        await ask(engine, tenant, work, key=None)
    assert work.done == 2


async def test_the_same_request_is_served_once(engine: AsyncEngine, tenant: Tenant) -> None:
    assert await ask(engine, tenant, Work(tenant)) == tenant.account_id
    assert await ask(engine, tenant, nothing) == tenant.account_id


@pytest.mark.parametrize(
    "other", [Request("createThing", {"name": "b"}), Request("createThing", {"name": "a", "alias": "b"})], ids=str
)
async def test_another_input_is_refused(engine: AsyncEngine, tenant: Tenant, other: Request) -> None:
    await ask(engine, tenant, Work(tenant))
    with pytest.raises(Refused, match="was used with another input at ") as raised:
        await ask(engine, tenant, nothing, request=other)
    (error,) = raised.value.errors
    assert (error.code, error.field) == (UserErrorCode.IDEMPOTENCY_CONFLICT, ("idempotencyKey",))


async def test_another_mutation_is_refused_by_name(engine: AsyncEngine, tenant: Tenant) -> None:
    await ask(engine, tenant, Work(tenant))
    with pytest.raises(Refused, match="was used for createThing at "):
        await ask(engine, tenant, nothing, request=Request("createOther", REQUEST.input))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 1}, {"a": 1, "b": []}),
        ({"a": UUID(int=1)}, {"a": str(UUID(int=1))}),
    ],
)
def test_what_counts_as_the_same(one: dict[str, object], other: dict[str, object]) -> None:
    assert Request("m", one).digest == Request("m", other).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": ""}, {}), ({"a": False}, {}), ({"a": 0}, {}), ({"a": ["b", "c"]}, {"a": ["bc"]}), ({"a": "b"}, {"b": "a"})],
)
def test_what_does_not_count_as_the_same(one: dict[str, object], other: dict[str, object]) -> None:
    assert Request("m", one).digest != Request("m", other).digest


def test_text_that_no_encoding_holds_has_a_digest() -> None:
    assert Request("m", {"a": "\ud800\0"}).digest


async def test_of_requests_that_meet_one_works_and_the_others_wait_for_it(
    engine: AsyncEngine, owner: Owner, tenant: Tenant
) -> None:
    first = Work(tenant, held=True)
    working = asyncio.create_task(ask(engine, tenant, first))
    await first.begun.wait()
    others = [asyncio.create_task(ask(engine, tenant, nothing)) for _ in range(3)]
    await waiting(owner, 3)
    first.may_end.set()
    assert await asyncio.gather(working, *others) == [tenant.account_id] * 4


async def test_when_the_first_is_refused_the_next_one_works(engine: AsyncEngine, owner: Owner, tenant: Tenant) -> None:
    first, second = Work(tenant, refused=True, held=True), Work(tenant)
    refused = asyncio.create_task(ask(engine, tenant, first))
    await first.begun.wait()
    served = asyncio.create_task(ask(engine, tenant, second, request=Request("createThing", {"name": "corrected"})))
    await waiting(owner, 1)
    first.may_end.set()
    with pytest.raises(Refused, match="Taken"):
        await refused
    assert await served == tenant.account_id
    assert second.done == 1


async def test_a_key_is_its_tenancys_own(
    engine: AsyncEngine, worker_engine: AsyncEngine, tenant: Tenant, new_tenant: NewTenant
) -> None:
    other = await new_tenant()
    await ask(engine, tenant, Work(tenant))
    assert await ask(engine, other, Work(other), request=Request("createThing", {"name": "b"})) == other.account_id
    async with transaction(engine, other.tenancy_id) as session:
        assert (await session.scalars(select(IdempotencyKey.tenancy_id))).all() == [other.tenancy_id]
    with pytest.raises(ProgrammingError, match="row-level security"):
        async with transaction(engine, other.tenancy_id) as session:
            await once(session, tenant.tenancy_id, "stolen", REQUEST, IdempotencyKey.account_id, nothing)


async def age(worker_engine: AsyncEngine, tenant: Tenant, seconds: int) -> None:
    """Let the tenant's keys be older than they are kept by so many seconds."""
    then = func.now() - KEPT - text(f"interval '{seconds} seconds'")
    async with transaction(worker_engine) as session:
        await session.execute(
            update(IdempotencyKey).where(IdempotencyKey.tenancy_id == tenant.tenancy_id).values(created_at=then)
        )


async def test_after_thirty_days_a_key_is_as_good_as_new(
    engine: AsyncEngine, worker_engine: AsyncEngine, tenant: Tenant
) -> None:
    await ask(engine, tenant, Work(tenant))
    await age(worker_engine, tenant, -60)
    assert await ask(engine, tenant, nothing) == tenant.account_id
    await age(worker_engine, tenant, 60)
    other = Request("createThing", {"name": "b"})
    work = Work(tenant)
    assert await ask(engine, tenant, work, request=other) == tenant.account_id
    assert await ask(engine, tenant, nothing, request=other) == tenant.account_id
    assert work.done == 1


async def keys(session: AsyncSession, tenant: Tenant) -> int:
    mine = select(func.count()).select_from(IdempotencyKey).where(IdempotencyKey.tenancy_id == tenant.tenancy_id)
    return int((await session.execute(mine)).scalar_one())


async def test_expired_keys_are_forgotten_in_batches_and_not_while_they_are_used(
    engine: AsyncEngine, worker_engine: AsyncEngine, tenant: Tenant
) -> None:
    for number in range(2):
        await ask(engine, tenant, Work(tenant), key=f"used-{number}")
    async with transaction(worker_engine) as session:
        session.add_all(
            IdempotencyKey(tenancy_id=tenant.tenancy_id, key=f"old-{number}", mutation="m", digest=b"")
            for number in range(BATCH)
        )
    await age(worker_engine, tenant, 60)
    await ask(engine, tenant, Work(tenant), key="kept")
    # Its request came back just now, and has not ended.
    again = Work(tenant, held=True)
    using = asyncio.create_task(ask(engine, tenant, again, key="used-1"))
    await again.begun.wait()
    async with transaction(worker_engine) as session:
        assert await forget_expired(session) == BATCH
        assert await keys(session, tenant) == 3
        assert await forget_expired(session) == 1
        assert await forget_expired(session) == 0
    again.may_end.set()
    await using
    async with transaction(worker_engine) as session:
        left = select(IdempotencyKey.key).where(IdempotencyKey.tenancy_id == tenant.tenancy_id)
        assert set(await session.scalars(left)) == {"kept", "used-1"}
