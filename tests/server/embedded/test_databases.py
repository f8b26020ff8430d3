"""PostgreSQL and Valkey: who may connect, what is kept, and who they run as."""

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from server.embedded import embedded, guard
from tests.server.embedded.processes import child_of, run, still_there

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A directory that every user can reach: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


async def query(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def modes_above(path: Path) -> dict[str, tuple[int, int]]:
    return {str(each): (each.stat().st_mode, each.stat().st_uid) for each in path.parents}


async def test_the_owner_may_create_roles_and_is_no_superuser(data_dir: Path) -> None:
    async with embedded(data_dir, services={"postgres"}, fsync=False) as services:
        superuser = await query(services.owner_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        owner = await query(
            services.owner_url, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
        )
        locale = await query(
            services.owner_url,
            "SELECT format('%s %s', datlocprovider, datlocale) FROM pg_database WHERE datname = 'freehold'",
        )
        password = services.worker_url.split(":")[2].split("@")[0]
        await query(services.owner_url, f"CREATE ROLE freehold_worker LOGIN BYPASSRLS PASSWORD '{password}'")
        worker = await query(services.worker_url, "SELECT current_user")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await query(services.worker_url.replace(password, "guessed"), "SELECT 1")
    assert superuser is False
    assert (owner, locale, worker) == ("freehold_owner", "b C.UTF-8", "freehold_worker")


async def test_rows_and_keys_survive_a_kill_of_everything(data_dir: Path) -> None:
    with run(data_dir, "postgres", "valkey") as running:
        await query(running.facts["owner_url"], "CREATE TABLE kept (number int)")
        await query(running.facts["owner_url"], "INSERT INTO kept VALUES (7)")
        async with Redis.from_url(running.facts["redis_url"]) as client:
            await client.set("kept", "seven")
        # The worst: supervisor, guards and services at once, and with them PostgreSQL's chance to remove its pid file.
        for process in [psutil.Process(running.process.pid), *running.children]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        assert still_there(running.children) == []
    assert (data_dir / "postgres" / "postmaster.pid").exists()

    async with embedded(data_dir, services={"postgres", "valkey"}, fsync=False) as services:
        assert await query(services.owner_url, "SELECT number FROM kept") == 7
        async with Redis.from_url(services.redis_url) as client:
            assert await client.get("kept") == b"seven"


@contextmanager
def sleeping_as(owner: os.stat_result) -> Iterator[subprocess.Popen[bytes]]:
    as_root = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "1000"], **as_root) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where a process works")
async def test_a_recycled_process_id_does_not_stop_postgres(data_dir: Path) -> None:
    async with embedded(data_dir, services={"postgres"}, fsync=False):
        pid_file = data_dir / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        owner = pid_file.stat()
    # After a restart of the machine the number may be anybody's, here that of a process of PostgreSQL's own user.
    with sleeping_as(owner) as other:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        async with embedded(data_dir, services={"postgres"}, fsync=False) as services:
            assert await query(services.owner_url, "SELECT 1") == 1


async def test_valkey_wants_its_password(data_dir: Path) -> None:
    async with embedded(data_dir, services={"valkey"}, fsync=False) as services:
        async with Redis.from_url(services.redis_url) as client:
            assert (await client.config_get("appendonly"))["appendonly"] == "yes"
        password = services.redis_url.split(":")[2].split("@")[0]
        async with Redis.from_url(services.redis_url.replace(f":{password}@", "")) as client:
            with pytest.raises(AuthenticationError):
                await client.get("anything")


def command_line(process: psutil.Process) -> str:
    """Empty for a process of an earlier test that has ended by now."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


async def test_no_password_is_on_a_command_line(data_dir: Path) -> None:
    async with embedded(data_dir, services={"postgres", "valkey"}, fsync=False) as services:
        lines = " ".join(command_line(each) for each in psutil.Process().children(recursive=True))
        for url in (services.owner_url, services.app_url, services.worker_url, services.redis_url):
            assert url.split(":")[2].split("@")[0] not in lines
    for path in (data_dir / "passwords.json", data_dir / "valkey" / "valkey.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    logs = "".join(path.read_text() for path in (data_dir / "logs").iterdir())
    assert services.owner_url.split(":")[2].split("@")[0] not in logs


@as_root
async def test_root_starts_postgres_as_somebody_else_below_a_closed_directory(shared_dir: Path) -> None:
    closed = shared_dir / "closed"
    closed.mkdir(mode=0o700)
    data_dir = closed / "home" / "data"
    before = modes_above(closed / "x")
    async with embedded(data_dir, services={"postgres"}, fsync=False) as services:
        postgres = child_of(psutil.Process(), "pginstall18/bin/postgres")
        user, name = postgres.uids().effective, await query(services.owner_url, "SELECT current_database()")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(services.owner_url, "SELECT pg_read_file('/etc/hostname')")
    assert user == NOBODY
    assert name == "freehold"
    assert modes_above(closed / "x") == before
    assert (data_dir.stat().st_uid, stat.S_IMODE(data_dir.stat().st_mode)) == (0, 0o700)


@as_root
async def test_an_ordinary_user_starts_everything_as_itself(shared_dir: Path) -> None:
    home = shared_dir / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    # The guard's way to another user, because this Python may lie where that user cannot read it.
    under = [sys.executable, "-I", "-S", "-E", guard.__file__, "15", "30", str(NOBODY), str(NOBODY), "1"]
    with run(home / "data", "postgres", "valkey", under=under) as running:
        assert {each.uids().effective for each in running.children} == {NOBODY}
        assert await query(running.facts["owner_url"], "SELECT current_user") == "freehold_owner"
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.process.wait(30) == 0
        assert still_there(running.children) == []
