"""The command line against a real database, as an operator types it."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from server.account_types.models import AccountType
from server.config import PREFIX, Settings
from server.database import create_engine, transaction
from server.errors import FreeholdError, Refused, UserErrorCode
from server.identity.service import authenticate
from server.migrate import migrate, scram_verifier
from server.operations import open_tenancy
from server.tenancies.models import Tenancy
from tests.running import CLEAN, FREEHOLD
from tests.server.fixtures import engine, settings, worker_engine
from workers import quotas
from workers.account_types.calls import PERMISSIONS as OF_UNITS
from workers.assurance.stages import STAGES
from workers.catalogue import declare_stages
from workers.policies import calls, comparison

__all__ = ["engine", "settings", "worker_engine"]

Run = Callable[..., Awaitable[tuple[int, str, str]]]
CONTACT = ("--email-template", "aws+{id}@example.com", "--security-contact", "Team", "team@example.com", "+1 555")


@pytest.fixture
def run(settings: Settings) -> Run:
    """Runs `freehold ...` and returns its exit status, stdout and stderr."""
    names = ("database_url", "worker_database_url", "owner_database_url", "redis_url", "aws_endpoint_url")
    environment = CLEAN | {PREFIX + name.upper(): str(getattr(settings, name)) for name in names}

    async def start(*words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(*FREEHOLD, *words), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()

    return start


async def test_a_tenancy_and_its_tokens(run: Run, engine: AsyncEngine, worker_engine: AsyncEngine) -> None:
    await declare_stages(worker_engine, STAGES)
    name = f"cli-{uuid4().hex[:8]}"
    # Other tests have theirs in this database.
    code, out, errors = await run("tenancy", "create", name, *CONTACT, "--another")
    assert (code, errors) == (0, "")
    assert out.startswith(f"Tenancy {name} is being set up")
    code, _, errors = await run("tenancy", "create", name, *CONTACT)
    assert (code, errors) == (1, f"freehold: There is a tenancy '{name}' already.\n")

    code, out, _ = await run("token", "create", "ci", "--tenancy", name, "--role", "USER", "--expires-in-days", "1")
    assert code == 0
    secret = out.strip()
    viewer = await authenticate(engine, secret)
    assert viewer is not None
    assert (viewer.token_name, viewer.role) == ("ci", "USER")
    _, out, _ = await run("token", "list", "--tenancy", name)
    assert re.fullmatch(rf"ci  USER  {secret[:11]}_\.\.\.  expires 20\S+  last used 20\S+\n", out), out
    assert secret not in out
    code, out, _ = await run("token", "revoke", "ci", "--tenancy", name)
    assert (code, out) == (0, "Token ci is revoked.\n")
    assert await authenticate(engine, secret) is None
    code, _, errors = await run("token", "revoke", "ci", "--tenancy", name)
    assert (code, errors) == (1, f"freehold: the tenancy '{name}' has no live token 'ci'\n")


async def test_a_second_tenancy_is_refused_unless_it_is_meant(empty: Settings) -> None:
    await migrate(empty)
    worker = create_engine(empty.require("worker_database_url"))
    await declare_stages(worker, STAGES)
    await worker.dispose()
    of_name = partial(
        open_tenancy,
        empty,
        email_template="aws+{id}@example.com",
        security_contact=("Team", "team@example.com", "+1 555"),
    )
    # Two that ask at once are two that ask one after the other.
    outcomes = await asyncio.gather(of_name(name="one"), of_name(name="two"), return_exceptions=True)
    (refused,) = (each for each in outcomes if isinstance(each, BaseException))
    (first,) = (each.name for each in outcomes if isinstance(each, Tenancy))
    assert isinstance(refused, FreeholdError)
    assert str(refused).startswith(f"there is the tenancy '{first}' already. The workers have the credentials of one")
    assert str(refused).endswith("add --another.")
    with pytest.raises(Refused) as same:
        await of_name(name=first)
    assert same.value.errors[0].code is UserErrorCode.NAME_IN_USE
    assert (await of_name(name="three", another=True)).name == "three"


async def test_an_unknown_tenancy_is_answered_with_those_there_are(run: Run) -> None:
    code, _, errors = await run("token", "list", "--tenancy", "nowhere")
    assert code == 1
    assert errors.startswith("freehold: there is no tenancy 'nowhere'; there are: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--email-template", "aws@example.com"), "The e-mail template must contain {id} exactly once."),
        (("--email-template", "a" * 30 + "{id}@example.com"), "{id} stands for 32 of them"),
        (("--region", "us-east"), "'us-east' is not the name of an AWS Region."),
        (("--region", "eu-west-1"), "The home Region us-east-1 is not among the Regions."),
        (("--security-contact", "Team", "nobody", "1"), "The security contact's e-mail is malformed."),
    ],
)
async def test_a_wrong_tenancy_is_refused(run: Run, words: tuple[str, ...], expected: str) -> None:
    code, _, errors = await run("tenancy", "create", f"wrong-{uuid4().hex[:8]}", *CONTACT, "--another", *words)
    assert code == 1
    assert expected in errors
    assert "Traceback" not in errors


async def test_the_iam_policy_holds_every_permission_that_is_declared(run: Run) -> None:
    code, out, _ = await run("iam-policy")
    assert code == 0
    (statement,) = json.loads(out)["Statement"]
    declared = {*calls.PERMISSIONS, *comparison.PERMISSIONS, *OF_UNITS, *quotas.PERMISSIONS}
    assert statement["Action"] == sorted({*declared, *(each for stage in STAGES for each in stage.permissions)})
    assert "sts:AssumeRole" in statement["Action"]


async def test_no_worker_is_said_to_be_at_work_when_there_is_none(run: Run) -> None:
    code, _, errors = await run("worker", "--check")
    assert (code, errors) == (
        1,
        "freehold: no worker on this machine has spoken to PostgreSQL in the last 30 seconds\n",
    )


async def test_counters_are_recounted(run: Run, worker_engine: AsyncEngine) -> None:
    await declare_stages(worker_engine, STAGES)
    name = f"cli-{uuid4().hex[:8]}"
    await run("tenancy", "create", name, *CONTACT, "--another")
    assert await run("recount") == (0, "Every counter was right.\n", "")
    async with transaction(worker_engine) as session:
        theirs = select(Tenancy.id).where(Tenancy.name == name).scalar_subquery()
        wrong = update(AccountType).where(AccountType.tenancy_id == theirs).values(account_count=7)
        await session.execute(wrong)
    code, out, errors = await run("recount")
    assert (code, errors) == (0, "")
    assert out == f"{name}  Foundation  had 7, is 2\n{name}  Management  had 7, is 1\n"
    assert await run("recount") == (0, "Every counter was right.\n", "")


TOKENS, WORKER = ("token", "list", "--tenancy", "x"), ("worker",)
WRONG_WAYS = {
    "away": ({"host": "127.0.0.1:1"}, "Check FREEHOLD_WORKER_DATABASE_URL, and that PostgreSQL runs."),
    "password": ({"password": "wrong"}, "PostgreSQL refuses the user or the password in FREEHOLD_WORKER_DATABASE_URL"),
    "database": ({"path": "/nowhere"}, "PostgreSQL has no database of the name in FREEHOLD_WORKER_DATABASE_URL"),
    "tables": ({"path": "/postgres"}, "run `freehold migrate` first"),
}


@pytest.mark.parametrize(
    ("command", "way"),
    # A worker waits for a database that is away.
    [(command, way) for command in (TOKENS, WORKER) for way in WRONG_WAYS if (command, way) != (WORKER, "away")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
async def test_a_fault_on_the_way_to_the_database_is_said_plainly(
    settings: Settings, command: tuple[str, ...], way: str
) -> None:
    change, expected = WRONG_WAYS[way]
    url = urlsplit(settings.require("worker_database_url"))
    password, host = change.get("password", url.password), change.get("host", f"{url.hostname}:{url.port}")
    wrong = url._replace(netloc=f"{url.username}:{password}@{host}", path=change.get("path", url.path))
    process = await asyncio.create_subprocess_exec(
        *(*FREEHOLD, *command),
        env={
            **CLEAN,
            "FREEHOLD_WORKER_DATABASE_URL": urlunsplit(wrong),
            "FREEHOLD_REDIS_URL": settings.require("redis_url"),
            "FREEHOLD_AWS_ENDPOINT_URL": settings.require("aws_endpoint_url"),
        },
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    errors = told.decode()
    assert process.returncode == 1
    assert errors.startswith("freehold: ")
    assert expected in errors
    assert "Traceback" not in errors
    assert str(url.password) not in errors


async def test_a_role_made_from_a_verifier_signs_in_with_its_password(settings: Settings) -> None:
    owner = await asyncpg.connect(settings.require("owner_database_url"))
    url = urlsplit(settings.require("owner_database_url"))
    role, password = f"verified_{uuid4().hex}", "correct horse é battery"
    try:
        await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{scram_verifier(password)}'")
        connection = await asyncpg.connect(
            host=url.hostname, port=url.port, user=role, password=password, database="postgres"
        )
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(host=url.hostname, port=url.port, user=role, password="wrong", database="postgres")
    finally:
        await owner.execute(f"DROP ROLE IF EXISTS {role}")
        await owner.close()
