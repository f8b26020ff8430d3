"""Bring the database to the newest revision: safe to run from many processes at once, and to repeat."""

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import unicodedata
from functools import cache
from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from server.config import Settings
from server.database import create_engine
from server.errors import FreeholdError
from server.roles import APP, OWNER, WORKER, DatabaseRole

logger = logging.getLogger(__name__)

# Any number that nothing else in the database uses: only one process migrates at a time.
MIGRATION_LOCK = 0x66726565
# Seconds before the next try of a migration that did not get a lock.
PAUSES = (0.5, 1, 2, 4, 8)
# SQLSTATEs: a lock was not to be had in time, and a circle of transactions waited for each other.
LOCK_FAULTS = ("55P03", "40P01")
SCRAM_ITERATIONS = 4096
HOLDERS = text("""
    SELECT format('process %s (%s)', pid, concat_ws(', ', usename, nullif(application_name, ''),
        'for ' || extract(epoch FROM clock_timestamp() - xact_start)::int || ' s'))
    FROM pg_stat_activity activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND EXISTS (
        SELECT FROM pg_locks JOIN pg_class ON pg_class.oid = pg_locks.relation
        WHERE pg_locks.pid = activity.pid AND granted AND relnamespace = 'public'::regnamespace)
    ORDER BY xact_start, age(backend_xid) DESC NULLS LAST LIMIT 5
""")


async def migrate(settings: Settings, revision: str = "head") -> str:
    """Create the roles that are missing and migrate to `revision`, in a transaction for each migration; returns the one
    reached.

    A role is created with the password of its setting's URL. One that exists is left as it is. A table that others use
    is given way to and tried again for some 20 seconds, for each migration anew.
    Raises ConfigurationError when the owner's URL is not set, FreeholdError when a role can be neither found nor made,
    a table stays in use or a migration fails: the database is then at the revision before that one.
    """
    engine = create_engine(settings.require(OWNER.setting), OWNER, pool_size=1)
    try:
        while True:
            reached, left = await _step(engine, settings, revision)
            if not left:
                return reached
    finally:
        await engine.dispose()


async def _step(engine: AsyncEngine, settings: Settings, revision: str) -> tuple[str, int]:
    """The next migration, tried until it gets its locks; the revision reached, and how many are left."""
    pauses = iter(PAUSES)
    while True:
        try:
            return await _try(engine, settings, revision)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in LOCK_FAULTS:
                raise
            held = await _held(engine)
        pause = next(pauses, None)
        if pause is None:
            raise FreeholdError(
                f"a table that the migration after revision {await _reached(engine)} changes was in use at each of "
                f"{len(PAUSES) + 1} tries; {held}. That migration has changed nothing, and those before it stay. Run "
                "`freehold migrate` again when it is quieter, and it goes on from there; or end what holds the table: "
                "an administrator can, by SELECT pg_terminate_backend(PROCESS)."
            )
        logger.warning("a table that a migration changes is in use, next try in %s s; %s", pause, held)
        await asyncio.sleep(pause)


async def _try(engine: AsyncEngine, settings: Settings, revision: str) -> tuple[str, int]:
    async with engine.begin() as connection:
        # Processes that migrate at once take their steps in turns: each looks anew what is left.
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        await connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        for role in (APP, WORKER):
            await _ensure_role(connection, role, settings)
        # Every query of a table queues behind a migration that waits for it. PostgreSQL looks for deadlocks after 1 s:
        # what gives up before is the migration, and not a request, unless that one has waited longer by then.
        await connection.execute(text("SET LOCAL lock_timeout = '900ms'"))
        return await connection.run_sync(_upgrade, revision)


async def _reached(engine: AsyncEngine) -> str | None:
    async with engine.connect() as connection:
        return await connection.run_sync(_revision)


async def _held(engine: AsyncEngine) -> str:
    """Who has locked tables just now, the longest first as far as the owner may see it."""
    async with engine.connect() as connection:
        holders = (await connection.scalars(HOLDERS)).all()
    return f"held by {', '.join(holders)}" if holders else "its holder has ended since"


def alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["connection"] = connection
    return config


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(files("migrations")))


def _upgrade(connection: Connection, revision: str) -> tuple[str, int]:
    """Run the first of the migrations that are left, if any; the revision reached, and how many are left then."""
    before = _revision(connection)
    left = [script.revision for script in _scripts().iterate_revisions(revision, before)]
    if not left:
        logger.info("database is at revision %s", before)
        return str(before), 0
    after = left.pop()
    try:
        command.upgrade(alembic_config(connection), after)
    except (DBAPIError, FreeholdError) as error:
        if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in (None, *LOCK_FAULTS):
            raise
        raise FreeholdError(
            f"migration {after} failed, and the database is at revision {before or 'none'}: "
            f"{error.orig if isinstance(error, DBAPIError) else error}. Nothing of that migration was kept. Put right "
            "what it says and run `freehold migrate` again, which goes on from there."
        ) from error
    logger.info("database is at revision %s, was %s", after, before or "empty")
    return after, len(left)


def _revision(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


async def _ensure_role(connection: AsyncConnection, needed: DatabaseRole, settings: Settings) -> None:
    role = needed.name
    exists = text("SELECT 1 FROM pg_roles WHERE rolname = :role")
    if await connection.scalar(exists, {"role": role}) is not None:
        return
    password = make_url(settings.require(needed.setting)).password
    if not password:
        raise FreeholdError(
            f"PostgreSQL has no role {role}, and {needed.variable} holds no password to create it with. "
            f"Put one into the URL, or create the role by hand: CREATE ROLE {role} LOGIN."
        )
    try:
        async with connection.begin_nested():
            # CREATE ROLE takes no parameters. What it is given here may be logged: nobody can sign in with it.
            await connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD '{scram_verifier(str(password))}'")
    except DBAPIError:
        # Roles belong to the whole cluster: a migration of another database may just have made it.
        if await connection.scalar(exists, {"role": role}) is None:
            raise FreeholdError(
                f"PostgreSQL has no role {role} and the owner may not create it. "
                f"Have an administrator run: CREATE ROLE {role} LOGIN PASSWORD '...'"
            ) from None


def scram_verifier(password: str) -> str:
    """What PostgreSQL keeps of a password, made here so that the password itself never reaches PostgreSQL.

    RFC 5803 section 3 is the form, RFC 5802 section 3 the keys in it.
    """
    salt = secrets.token_bytes(16)
    normal = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", normal, salt, SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    kept, stored_key, server_key = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{kept}${stored_key}:{server_key}"
