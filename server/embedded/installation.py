"""All of Freehold on one machine: the embedded services, the migrations, a server, a worker and the tenancy `local`."""

import asyncio
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console
from sqlalchemy import exists, select

from server.assurance.models import StageDefinition
from server.config import PREFIX, Settings
from server.embedded.directory import write_private
from server.embedded.ports import LOOPBACK, free_port, require_free_port
from server.embedded.services import Services, embedded
from server.migrate import migrate
from server.operations import issue_token, open_tenancy, session_for
from server.tenancies.models import Tenancy

T = TypeVar("T")

logger = logging.getLogger(__name__)

TENANCY = "local"
EMAIL_TEMPLATE = "aws+{id}@freehold.example"
SECURITY_CONTACT = ("Security team", "security@freehold.example", "+1 555 0100")
PROBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Installation:
    """A running installation: where it answers, and a token of the role ADMIN in its tenancy."""

    url: str
    token: str
    services: Services

    def describe(self) -> dict[str, str]:
        """What `freehold up --json` prints. Every value with a password or token is for the owner of the machine."""
        return {
            "url": self.url,
            "console": f"{self.url}/console",
            "token": self.token,
            "awsEndpoint": self.services.aws_endpoint,
            "databaseUrl": self.services.worker_url,
            "redisUrl": self.services.redis_url,
            "dataDir": str(self.services.data_dir),
        }

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; raises ServiceError as soon as a part cannot be kept running."""
        working, running = asyncio.create_task(work), asyncio.create_task(self.services.wait())
        try:
            await asyncio.wait((working, running), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            return working.result()
        finally:
            for task in (working, running):
                task.cancel()
            await asyncio.gather(working, running, return_exceptions=True)


@asynccontextmanager
async def installation(data_dir: Path, port: int | None) -> AsyncIterator[Installation]:
    """Run everything on a data directory until the context is left; `port` None chooses a free one.

    On the first start the tenancy `local` is opened and bootstraps itself while the server answers.
    Raises EmbeddedError, whose message says which part does not start and why.
    """
    if port is None:
        port = free_port()
    else:
        require_free_port(LOOPBACK, port)
    async with embedded(data_dir) as services:
        settings = settings_for(services, port)
        await migrate(settings)
        environment = as_environment(settings)
        async with asyncio.TaskGroup() as group:
            group.create_task(
                services.start("worker", freehold("worker"), environment, lambda: worker_is_ready(settings))
            )
            group.create_task(
                services.start("server", freehold("server"), environment, lambda: server_is_ready(settings))
            )
        await ensure_tenancy(settings)
        token = await ensure_token(settings, services.data_dir / "token")
        yield Installation(f"http://{settings.host}:{port}", token, services)


async def serve_until_stopped(data_dir: Path, port: int, *, as_json: bool) -> None:
    """Run an installation until SIGINT or SIGTERM, and say on stdout how to use it."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    starting = asyncio.create_task(_serve(data_dir, port, stopped, as_json=as_json))
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        # Stopped: cancelling leaves the contexts in order, whether everything had started or not.
        starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    if not starting.cancelled():
        starting.result()


async def _serve(data_dir: Path, port: int, stopped: asyncio.Event, *, as_json: bool) -> None:
    async with installation(data_dir, port) as running:
        show(running, as_json=as_json)
        await running.while_up(stopped.wait())


def show(running: Installation, *, as_json: bool) -> None:
    description = running.describe()
    if as_json:
        print(json.dumps(description), flush=True)  # noqa: T201 - this is the command's output
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Freehold is running. GraphiQL: {running.url}/graphql")
    console.print(f'Its headers:          {{"Authorization": "Bearer {running.token}"}}', markup=False)
    console.print(f"AWS simulator:        {description['awsEndpoint']}")
    console.print(f"Data, kept:           {description['dataDir']}")
    console.print("Ctrl-C stops all of it.")


def settings_for(services: Services, port: int) -> Settings:
    return Settings(
        owner_database_url=services.owner_url,
        database_url=services.app_url,
        worker_database_url=services.worker_url,
        redis_url=services.redis_url,
        aws_endpoint_url=services.aws_endpoint,
        host=LOOPBACK,
        port=port,
    )


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings that the server and the worker need, as variables; settings of the caller's own are taken away."""
    names = ("database_url", "worker_database_url", "redis_url", "aws_endpoint_url", "host", "port")
    inherited = dict.fromkeys((name for name in os.environ if name.startswith(PREFIX)), "")
    return inherited | {PREFIX + name.upper(): str(getattr(settings, name)) for name in names}


def freehold(command: str) -> list[str]:
    return [sys.executable, "-m", "server.cli", command]


async def worker_is_ready(settings: Settings) -> bool:
    """Whether a worker has declared its stages, without which no setup can begin."""
    async with session_for(settings) as session:
        return bool(await session.scalar(select(exists().select_from(StageDefinition))))


async def server_is_ready(settings: Settings) -> bool:
    try:
        async with httpx.AsyncClient(timeout=PROBE_SECONDS) as client:
            return (await client.get(f"http://{settings.host}:{settings.port}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def ensure_tenancy(settings: Settings) -> None:
    async with session_for(settings) as session:
        present = await session.scalar(select(exists().where(Tenancy.name == TENANCY)))
    if not present:
        await open_tenancy(settings, name=TENANCY, email_template=EMAIL_TEMPLATE, security_contact=SECURITY_CONTACT)


async def ensure_token(settings: Settings, path: Path) -> str:
    """The token kept in the data directory; a new one when there is none."""
    kept = read_secret(path)
    if kept is not None:
        return kept
    secret = await issue_token(settings, TENANCY, f"up-{secrets.token_hex(4)}", "ADMIN")
    write_private(path, secret + "\n")
    return secret


def read_secret(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None
