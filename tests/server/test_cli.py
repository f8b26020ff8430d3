"""The command line against a real database, as an operator types it."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.config import PREFIX, Settings
from server.identity.service import authenticate
from tests.running import CLEAN, FREEHOLD
from tests.server.fixtures import engine, settings, worker_engine
from workers.assurance.stages import STAGES
from workers.catalogue import declare_stages

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
    code, out, errors = await run("tenancy", "create", name, *CONTACT)
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
    code, _, errors = await run("tenancy", "create", f"wrong-{uuid4().hex[:8]}", *CONTACT, *words)
    assert code == 1
    assert expected in errors
    assert "Traceback" not in errors


async def test_the_iam_policy_holds_every_permission_of_every_stage(run: Run) -> None:
    code, out, _ = await run("iam-policy")
    assert code == 0
    (statement,) = json.loads(out)["Statement"]
    assert statement["Action"] == sorted({each for stage in STAGES for each in stage.permissions})
    assert "sts:AssumeRole" in statement["Action"]


async def test_no_worker_is_said_to_be_at_work_when_there_is_none(run: Run) -> None:
    code, _, errors = await run("worker", "--check")
    assert (code, errors) == (
        1,
        "freehold: no worker on this machine has spoken to PostgreSQL in the last 30 seconds\n",
    )


async def test_an_unreachable_database_is_said_plainly() -> None:
    process = await asyncio.create_subprocess_exec(
        *(*FREEHOLD, "migrate"),
        env={
            **os.environ,
            "FREEHOLD_OWNER_DATABASE_URL": "postgresql://o:secret@127.0.0.1:1/f",
            "FREEHOLD_DATABASE_URL": "postgresql://freehold_app:a@127.0.0.1:1/f",
            "FREEHOLD_WORKER_DATABASE_URL": "postgresql://freehold_worker:a@127.0.0.1:1/f",
        },
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().startswith("freehold: PostgreSQL does not answer")
    assert "secret" not in errors.decode()
