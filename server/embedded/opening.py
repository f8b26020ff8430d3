"""What makes an installation out of running services: the migrations, the tenancy `local`, a token, and readiness.

Importing this costs as much as starting PostgreSQL does, so `installation.py` imports it while the services start.
"""

import secrets
from pathlib import Path

import httpx

from server.config import Settings
from server.database import create_engine
from server.embedded.directory import write_private
from server.embedded.supervisor import Probe
from server.identity.service import authenticate
from server.migrate import migrate
from server.operations import issue_token, open_tenancy
from server.outages import is_away
from server.roles import APP, WORKER, connect, listener_name

__all__ = ["ensure_tenancy", "ensure_token", "migrate", "server_is_ready", "worker_is_ready"]

TENANCY = "local"
EMAIL_TEMPLATE = "aws+{id}@freehold.example"
SECURITY_CONTACT = ("Security team", "security@freehold.example", "+1 555 0100")
PROBE_SECONDS = 1.0


def worker_is_ready(settings: Settings) -> Probe:
    """Asks whether the worker of a start is at work: whether it listens, which it does once all else is ready."""

    async def ask(start: str) -> bool:
        try:
            connection = await connect(WORKER, settings.worker_database_url)
            try:
                listens = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1)"
                return bool(await connection.fetchval(listens, listener_name(start)))
            finally:
                await connection.close()
        except Exception as error:
            if not is_away(error):
                raise
            return False

    return ask


def server_is_ready(settings: Settings) -> Probe:
    """Asks whether the server answers and reaches PostgreSQL."""

    async def ask(start: str) -> bool:
        try:
            async with httpx.AsyncClient(timeout=PROBE_SECONDS, trust_env=False) as client:
                return (await client.get(f"http://{settings.host}:{settings.port}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    return ask


async def ensure_tenancy(settings: Settings) -> None:
    """Open the tenancy, which then bootstraps itself, unless an earlier start has."""
    connection = await connect(WORKER, settings.worker_database_url)
    try:
        present = await connection.fetchval("SELECT EXISTS (SELECT FROM tenancy WHERE name = $1)", TENANCY)
    finally:
        await connection.close()
    if not present:
        await open_tenancy(settings, name=TENANCY, email_template=EMAIL_TEMPLATE, security_contact=SECURITY_CONTACT)


async def ensure_token(settings: Settings, path: Path) -> str:
    """The token kept in the data directory; a new one when there is none, or it is revoked."""
    kept = read_secret(path)
    if kept is not None and await signs_in(settings, kept):
        return kept
    secret = await issue_token(settings, TENANCY, f"up-{secrets.token_hex(4)}", "ADMIN")
    write_private(path, secret + "\n")
    return secret


async def signs_in(settings: Settings, secret: str) -> bool:
    engine = create_engine(settings.require(APP.setting), APP, pool_size=1)
    try:
        return await authenticate(engine, secret) is not None
    finally:
        await engine.dispose()


def read_secret(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None
