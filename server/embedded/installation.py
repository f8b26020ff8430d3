"""All of Freehold on one machine: the embedded services, the migrations, a server, a worker and the tenancy `local`."""

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from server.config import PREFIX, Settings
from server.embedded.ports import LOOPBACK, free_port, require_free_port
from server.embedded.services import Services, embedded

T = TypeVar("T")


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
    # Imported while the services start, which takes as long.
    importing = asyncio.create_task(asyncio.to_thread(importlib.import_module, "server.embedded.opening"))
    async with embedded(data_dir) as services:
        opening = await importing
        settings = settings_for(services, port)
        await opening.migrate(settings)
        environment = as_environment(settings)
        await asyncio.gather(
            services.start("worker", freehold("worker"), environment, opening.worker_is_ready(settings)),
            services.start("server", freehold("server"), environment, opening.server_is_ready(settings)),
        )
        await opening.ensure_tenancy(settings)
        token = await opening.ensure_token(settings, services.data_dir / "token")
        yield Installation(f"http://{settings.host}:{port}", token, services)


async def until_stopped(work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None when SIGINT or SIGTERM came first; then it was cancelled and has cleaned up."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    working, stopping = asyncio.create_task(work), asyncio.create_task(stopped.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return None if working.cancelled() else working.result()


async def serve_until_stopped(data_dir: Path, port: int, *, as_json: bool) -> None:
    """Run an installation until SIGINT or SIGTERM, and say on stdout how to use it."""
    await until_stopped(_serve(data_dir, port, as_json=as_json))
    if not as_json:
        print(f"Stopped. The data is kept in {data_dir}.")  # noqa: T201


async def _serve(data_dir: Path, port: int, *, as_json: bool) -> None:
    async with installation(data_dir, port) as running:
        show(running, as_json=as_json)
        await running.services.wait()


def show(running: Installation, *, as_json: bool) -> None:
    description = running.describe()
    if as_json:
        print(json.dumps(description), flush=True)  # noqa: T201 - this is the command's output
        return
    lines = (
        f"Freehold is running. GraphiQL: {running.url}/graphql",
        f'Its headers:          {{"Authorization": "Bearer {running.token}"}}',
        f"AWS simulator:        {description['awsEndpoint']}",
        f"Data, kept:           {description['dataDir']}",
        f"Logs:                 {description['dataDir']}/logs",
        "For `freehold token` in another terminal:",
        f"    export FREEHOLD_WORKER_DATABASE_URL='{description['databaseUrl']}'",
        "Ctrl-C stops all of it.",
    )
    print("\n".join(lines), flush=True)  # noqa: T201


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
