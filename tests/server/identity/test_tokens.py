"""API tokens: made once, kept as a hash, good until they are revoked or expire."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from server.context import Viewer
from server.database import transaction
from server.errors import Refused, UserErrorCode
from server.graphql.mutations import violated_constraint
from server.identity.models import ApiToken, Role
from server.identity.service import RACES, Authenticator, authenticate, create_token, revoke_token
from tests.server.fixtures import Owner, Tenant


async def test_a_token_signs_its_viewer_in(engine: AsyncEngine, tenant: Tenant) -> None:
    assert re.fullmatch(r"fh_[0-9a-f]{8}_[0-9a-zA-Z_-]{43}", tenant.secret)
    viewer = await authenticate(engine, tenant.secret)
    assert viewer == Viewer(tenant.token_id, "admin", tenant.tenancy_id, Role.ADMIN)


async def test_only_a_hash_is_kept(tenant: Tenant, owner: Owner) -> None:
    row = await owner.fetchrow("SELECT * FROM api_token WHERE id = $1", tenant.token_id)
    assert row["hash"] == hashlib.sha256(tenant.secret.encode()).digest()
    assert row["prefix"] == tenant.secret[3:11]
    assert tenant.secret[12:] not in repr(dict(row))


@pytest.mark.parametrize(
    "secret", ["", "nonsense", "fh_00000000_" + "x" * 43, "fh_\ud800", "fh_00000000_" + "x" * 43 + "\n"]
)
async def test_what_is_no_token_is_nobody(engine: AsyncEngine, secret: str) -> None:
    assert await authenticate(engine, secret) is None


async def test_using_a_token_is_noted_once_a_minute(engine: AsyncEngine, tenant: Tenant, owner: Owner) -> None:
    last_used = "SELECT last_used_at FROM api_token WHERE id = $1"
    assert await owner.fetchval(last_used, tenant.token_id) is None
    await authenticate(engine, tenant.secret)
    first = await owner.fetchval(last_used, tenant.token_id)
    assert first is not None
    await authenticate(engine, tenant.secret)
    assert await owner.fetchval(last_used, tenant.token_id) == first


@pytest.mark.parametrize("name", ["", "x", "x" * 65, "a b", "a\n", "ä" * 3, "a/b"])
async def test_a_wrong_name_is_refused(worker_engine: AsyncEngine, tenant: Tenant, name: str) -> None:
    with pytest.raises(Refused) as caught:
        async with transaction(worker_engine) as session:
            await create_token(session, tenant.tenancy_id, name, Role.USER)
    (error,) = caught.value.errors
    assert (error.code, error.field) == (UserErrorCode.VALIDATION, ("name",))


@pytest.mark.parametrize("expires_at", [datetime.now(UTC) - timedelta(seconds=1), datetime(2999, 1, 1)])
async def test_a_wrong_expiry_is_refused(worker_engine: AsyncEngine, tenant: Tenant, expires_at: datetime) -> None:
    with pytest.raises(Refused) as caught:
        async with transaction(worker_engine) as session:
            await create_token(session, tenant.tenancy_id, "fine", Role.USER, expires_at)
    assert caught.value.errors[0].field == ("expiresAt",)


async def test_a_name_is_used_once_among_live_tokens(worker_engine: AsyncEngine, tenant: Tenant) -> None:
    with pytest.raises(Refused) as caught:
        async with transaction(worker_engine) as session:
            await create_token(session, tenant.tenancy_id, "admin", Role.USER)
    assert caught.value.errors[0].code is UserErrorCode.NAME_IN_USE
    async with transaction(worker_engine) as session:
        await revoke_token(session, tenant.tenancy_id, tenant.token_id)
        await create_token(session, tenant.tenancy_id, "admin", Role.USER)


async def test_the_race_for_a_name_is_known_by_its_constraint(worker_engine: AsyncEngine, tenant: Tenant) -> None:
    with pytest.raises(IntegrityError) as caught:
        async with transaction(worker_engine) as session:
            session.add(ApiToken(tenancy_id=tenant.tenancy_id, name="admin", prefix="x", hash=b"x", role=Role.USER))
    assert violated_constraint(caught.value) in RACES


async def test_a_revoked_token_is_nobody_s(engine: AsyncEngine, worker_engine: AsyncEngine, tenant: Tenant) -> None:
    for _ in range(2):
        async with transaction(worker_engine) as session:
            token = await revoke_token(session, tenant.tenancy_id, tenant.token_id)
            assert token.revoked_at is not None
    assert await authenticate(engine, tenant.secret) is None


async def test_an_expired_token_is_nobody_s(engine: AsyncEngine, owner: Owner, tenant: Tenant) -> None:
    await owner.execute("UPDATE api_token SET expires_at = now() WHERE id = $1", tenant.token_id)
    assert await authenticate(engine, tenant.secret) is None


async def test_another_tenancy_s_token_cannot_be_revoked(worker_engine: AsyncEngine, tenant: Tenant) -> None:
    for tenancy_id, token_id in ((uuid4(), tenant.token_id), (tenant.tenancy_id, uuid4())):
        with pytest.raises(Refused) as caught:
            async with transaction(worker_engine) as session:
                await revoke_token(session, tenancy_id, token_id)
        assert caught.value.errors[0].code is UserErrorCode.NOT_FOUND


async def test_a_revoked_token_is_remembered_no_longer_than_it_may_be(
    engine: AsyncEngine, worker_engine: AsyncEngine, tenant: Tenant
) -> None:
    forgetful, remembering = Authenticator(engine, seconds_to_live=0), Authenticator(engine, seconds_to_live=3600)
    for authenticator in (forgetful, remembering):
        assert await authenticator(tenant.secret) is not None
    async with transaction(worker_engine) as session:
        await revoke_token(session, tenant.tenancy_id, tenant.token_id)
    assert await forgetful(tenant.secret) is None
    assert await remembering(tenant.secret) is not None


async def test_the_memory_is_bounded(engine: AsyncEngine, worker_engine: AsyncEngine, tenant: Tenant) -> None:
    authenticator = Authenticator(engine, seconds_to_live=3600, size=1)
    async with transaction(worker_engine) as session:
        _, other = await create_token(session, tenant.tenancy_id, "other", Role.USER)
        token_id = tenant.token_id
    assert await authenticator(tenant.secret) is not None
    assert await authenticator(other) is not None
    async with transaction(worker_engine) as session:
        await revoke_token(session, tenant.tenancy_id, token_id)
    assert await authenticator(tenant.secret) is None
