"""Whom each part signs in to PostgreSQL as: anybody else is refused, by the name of the setting."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
from sqlalchemy import text

from server.config import PREFIX, Settings
from server.database import create_engine, transaction
from server.embedded import Services, directory
from server.embedded.postgres import SUPERUSER
from server.outages import is_away
from server.planner.reader import Reader
from server.roles import APP, OWNER, WORKER, DatabaseRefused, DatabaseRole, connect
from tests.running import CLEAN, FREEHOLD
from tests.server.fixtures import (
    Tenant,
    engine,
    new_tenant,
    owner,
    running,
    settings,
    tenant,
    until_ready,
    worker_engine,
)
from tests.server.waiting import until

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]

# What a role of PostgreSQL is made with, by the name that the tests give it; `{name}` is its own.
MADE = {
    "superuser": "CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{password}' IN ROLE freehold_app",
    "unbound": "CREATE ROLE {name} LOGIN BYPASSRLS PASSWORD '{password}' IN ROLE freehold_app",
    "both": "CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE freehold_app, freehold_worker",
    "nobody": "CREATE ROLE {name} LOGIN PASSWORD '{password}'",
    "app member": "CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE freehold_app",
    "worker member": "CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE freehold_worker",
}

UrlOf = Callable[[str], Awaitable[str]]


@pytest.fixture
async def superuser(services: Services) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    parts = urlsplit(services.owner_url)
    password = directory.passwords(services.data_dir, [SUPERUSER])[SUPERUSER]
    connection = await asyncpg.connect(f"postgresql://{SUPERUSER}:{password}@{parts.hostname}:{parts.port}/postgres")
    yield connection
    await connection.close()


@pytest.fixture
async def url_of(settings: Settings, superuser: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[UrlOf]:
    """The URL of one of Freehold's roles, or of a role that is made for the test."""
    made = []
    names = {"app": APP, "worker": WORKER, "owner": OWNER}

    async def url(who: str) -> str:
        if who in names:
            return settings.require(names[who].setting)
        name, password = f"test_{secrets.token_hex(6)}", secrets.token_hex(8)
        await superuser.execute(MADE[who].format(name=name, password=password))
        made.append(name)
        return as_user(settings.require(APP.setting), name, password)

    yield url
    for name in made:
        await superuser.execute(f"DROP ROLE {name}")


def as_user(url: str, name: str | None, password: str | None) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{name}:{password}@{parts.hostname}:{parts.port}"))


@pytest.mark.parametrize(
    ("role", "who", "fault"),
    [
        (APP, "superuser", "a superuser"),
        (APP, "unbound", "whom row-level security does not bind"),
        (APP, "owner", "whom row-level security does not bind"),
        (APP, "worker", "who sees every tenancy"),
        (APP, "both", "who sees every tenancy"),
        (APP, "nobody", "who is no freehold_app"),
        (WORKER, "superuser", "a superuser"),
        (WORKER, "owner", "who owns the tables"),
        (WORKER, "app", "who is no freehold_worker"),
        (OWNER, "app", "which may not create tables"),
        (OWNER, "worker", "which may not create tables"),
    ],
    ids=lambda value: value.name if isinstance(value, DatabaseRole) else value,
)
async def test_nobody_else_is_let_in(url_of: UrlOf, role: DatabaseRole, who: str, fault: str) -> None:
    url = await url_of(who)
    with pytest.raises(DatabaseRefused) as refused:
        await connect(role, url)
    assert str(refused.value).startswith(f"{role.variable} signs in to PostgreSQL as {urlsplit(url).username}, {fault}")
    assert f"It has to be {role.purpose}." in str(refused.value)
    assert str(urlsplit(url).password) not in str(refused.value)


@pytest.mark.parametrize(
    ("role", "who"),
    [(APP, "app"), (APP, "app member"), (WORKER, "worker"), (WORKER, "worker member"), (OWNER, "owner")],
    ids=lambda value: value.name if isinstance(value, DatabaseRole) else value,
)
async def test_who_has_the_role_is_let_in(url_of: UrlOf, role: DatabaseRole, who: str) -> None:
    connection = await connect(role, await url_of(who))
    await connection.close()


async def test_every_connection_of_an_engine_and_of_a_reader_is_asked(url_of: UrlOf, tenant: Tenant) -> None:
    url = await url_of("worker")
    engine, reader = create_engine(url, APP), Reader(url)
    try:
        with pytest.raises(DatabaseRefused, match=APP.variable):
            async with transaction(engine) as session:
                await session.execute(text("SELECT 1"))
        with pytest.raises(DatabaseRefused, match=APP.variable):
            await reader.fetch(tenant.tenancy_id, "SELECT to_json(1)")
    finally:
        await reader.close()
        await engine.dispose()


async def test_what_was_given_to_the_right_role_is_to_be_taken_from_it(
    url_of: UrlOf, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    url = await url_of("app member")
    name = str(urlsplit(url).username)
    role = DatabaseRole(name, WORKER.setting, WORKER.purpose)
    await superuser.execute(f"ALTER ROLE {name} SUPERUSER")
    with pytest.raises(DatabaseRefused, match=f"Put that right with: ALTER ROLE {name} NOSUPERUSER"):
        await connect(role, url)


PARTS = {
    "server": (APP, "worker", ("server",)),
    "worker": (WORKER, "owner", ("worker",)),
    "token": (WORKER, "app", ("token", "list", "--tenancy", "x")),
    "recount": (WORKER, "owner", ("recount",)),
    "check": (WORKER, "app", ("worker", "--check")),
    "migrate": (OWNER, "app", ("migrate",)),
}


async def told_at_its_start(settings: Settings, role: DatabaseRole, url: str, words: tuple[str, ...]) -> str:
    """What a command prints on stderr, which has to be one line, before it ends with 1; `url` is that of the role."""
    names = (APP.setting, WORKER.setting, OWNER.setting, "redis_url", "aws_endpoint_url")
    given = {PREFIX + name.upper(): settings.require(name) for name in names} | {role.variable: url}
    process = await asyncio.create_subprocess_exec(
        *(*FREEHOLD, *words),
        env=CLEAN | given,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    told = errors.decode()
    assert process.returncode == 1, told
    assert told.startswith("freehold: ")
    assert told.count("\n") == 1, told
    assert str(urlsplit(url).password) not in told
    return told


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_does_not_start_as_somebody_else(settings: Settings, url_of: UrlOf, part: str) -> None:
    role, who, words = PARTS[part]
    told = await told_at_its_start(settings, role, await url_of(who), words)
    assert f"{role.variable} signs in to PostgreSQL as" in told


# Others are in test_cli.py.
@pytest.mark.parametrize(
    ("part", "wrong"),
    [("server", "password"), ("server", "user"), ("server", "database"), ("check", "user"), ("migrate", "password")],
)
async def test_a_part_that_is_not_let_in_names_its_setting(settings: Settings, part: str, wrong: str) -> None:
    role, _, words = PARTS[part]
    url = urlsplit(settings.require(role.setting))
    changed = {
        "password": as_user(url.geturl(), url.username, "mistaken"),
        "user": as_user(url.geturl(), "freehold_ap", url.password),
        "database": url._replace(path="/nowhere").geturl(),
    }
    told = await told_at_its_start(settings, role, changed[wrong], words)
    expected = {"password": "the user or the password in", "user": "the user or the password in"}
    assert f"{expected.get(wrong, 'no database of the name in')} {role.variable}:" in told


async def test_a_password_that_is_changed_under_a_server_is_an_outage_that_passes(
    settings: Settings,
    url_of: UrlOf,
    superuser: "asyncpg.Connection[asyncpg.Record]",
    tenant: Tenant,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = await url_of("app member")
    name, password = urlsplit(url).username, urlsplit(url).password
    async with running(replace(settings, database_url=url)) as client:
        await until_ready(client)

        async def answers() -> httpx.Response:
            return await client.post("/graphql", json={"query": "{ viewer { name } }"}, headers=tenant.headers)

        assert (await answers()).json() == {"data": {"viewer": {"name": "admin"}}}
        await superuser.execute(f"ALTER ROLE {name} PASSWORD 'another'")
        await superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name)
        (error,) = (await answers()).json()["errors"]
        assert error["extensions"] == {"code": "UNAVAILABLE"}
        assert (await client.get("/readyz")).status_code == 503
        await superuser.execute(f"ALTER ROLE {name} PASSWORD '{password}'")
        await until_ready(client)

        async def served() -> bool:
            return "data" in (await answers()).json()

        await until(served)
    told = [record for record in caplog.records if APP.variable in record.getMessage()]
    assert told
    assert all(record.exc_info is None for record in told)
    assert str(password) not in caplog.text


def test_a_refusal_is_an_outage_for_what_runs() -> None:
    assert is_away(DatabaseRefused("..."))
