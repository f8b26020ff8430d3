"""Nothing outlives its supervisor, and nothing that should run stays down."""

import asyncio
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from server.embedded import (
    DirectoryInUseError,
    EmbeddedError,
    PortInUseError,
    ServiceError,
    embedded,
    require_free_port,
)
from server.embedded.directory import held
from server.embedded.supervisor import Command, Supervisor
from tests.server.embedded.processes import child_of, command_line, run, still_there
from tests.server.waiting import until


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    async with held(tmp_path) as lock:
        supervisor = Supervisor(tmp_path / "logs", lock)
        yield supervisor
        await supervisor.stop()


def touching(path: Path, then: str) -> list[str]:
    """A command that leaves a byte in `path` at each start."""
    return ["sh", "-c", f"printf x >> {path}; {then}"]


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGKILL, True)],
)
async def test_no_orphan_is_left(data_dir: Path, number: signal.Signals, group: bool) -> None:
    with run(data_dir, "postgres", "valkey", "sleeper") as running:

        async def all_there() -> bool:
            # A child that has just been forked still looks like its parent.
            lines = " ".join(map(command_line, running.children))
            return all(each in lines for each in ("bin/postgres", "valkey-server", "time.sleep"))

        await until(all_there, within=10)
        code = running.end(number, group=group)
        assert still_there(running.children) == []
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)


async def test_a_killed_guard_takes_its_child_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    async def ready(_: str) -> bool:
        return marker.exists()

    await supervisor.start(Command("sleeper", touching(marker, "exec sleep 1002"), ready=ready))
    child = child_of(psutil.Process(), "sleep 1002")
    guard = child.parent()
    assert guard is not None
    guard.kill()
    assert await asyncio.to_thread(still_there, [child]) == []


async def test_a_second_start_is_refused(data_dir: Path) -> None:
    with run(data_dir, "valkey") as running:
        with pytest.raises(DirectoryInUseError, match=f"{data_dir} is in use by process {running.process.pid}"):
            async with embedded(data_dir, services={"valkey"}):
                pass
        running.end(signal.SIGTERM)


async def test_a_start_waits_for_what_a_killed_run_left(data_dir: Path) -> None:
    """The guards hold the directory until their children are gone, so that two never share a data file."""
    with run(data_dir, "postgres", "valkey") as running:
        running.end(signal.SIGKILL)
        async with embedded(data_dir, services={"postgres", "valkey"}, fsync=False):
            assert still_there(running.children, seconds=1) == []


async def test_what_ends_is_started_again(
    supervisor: Supervisor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = tmp_path / "starts"

    async def ready(_: str) -> bool:
        return starts.exists()

    await supervisor.start(Command("flaky", touching(starts, "exec sleep 1000"), ready=ready))
    child_of(psutil.Process(), "sleep 1000").kill()
    async with asyncio.timeout(10):
        while starts.stat().st_size < 2:  # noqa: ASYNC110 - another process's file announces nothing
            await asyncio.sleep(0.02)
    assert "flaky ended unexpectedly (SIGKILL); starting it again" in caplog.text


async def test_what_cannot_start_is_an_error_with_the_end_of_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    starts = tmp_path / "starts"

    async def never(_: str) -> bool:
        return False

    with pytest.raises(ServiceError, match=r"broken does not start: it ended 3 times \(exit status 3\)") as failed:
        await supervisor.start(Command("broken", touching(starts, "echo no disk >&2; exit 3"), ready=never))
    assert "no disk" in str(failed.value)
    assert starts.read_text() == "xxx"


async def test_what_stops_starting_later_ends_the_wait(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start(Command("short", touching(tmp_path / "starts", "exit 1")))
    with pytest.raises(ServiceError, match="short does not start"):
        async with asyncio.timeout(10):
            await supervisor.wait()


async def test_a_child_that_ignores_its_signal_is_killed_with_what_it_started(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    script = "import signal, subprocess, time; signal.signal(15, signal.SIG_IGN); "
    script += f"subprocess.Popen(['sleep', '1001']); open({str(marker)!r}, 'w').close(); time.sleep(1000)"

    async def ready(_: str) -> bool:
        return marker.exists()

    await supervisor.start(Command("stubborn", [sys.executable, "-c", script], ready=ready, grace=0.2))
    child = child_of(psutil.Process(), "time.sleep(1000)")
    family = [child, *child.children()]
    await supervisor.stop()
    assert still_there(family, seconds=5) == []


async def test_environment_reaches_the_child_and_not_the_list_of_processes(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    await supervisor.run(Command("printer", ["sh", "-c", 'echo "$SECRET"'], {"SECRET": "from the environment"}))
    log = tmp_path / "logs" / "printer.log"
    assert log.read_text() == "from the environment\n"


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError) as refused:
            require_free_port("127.0.0.1", port)
    assert str(refused.value) == (
        f"port {port} on 127.0.0.1 is already in use by another process: end that one, or choose another port "
        "with --port"
    )
    require_free_port("127.0.0.1", port)


async def test_the_data_directory_is_closed_to_others_unless_it_was_there(tmp_path: Path) -> None:
    new, open_to_all = tmp_path / "new", tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    for path in (new, open_to_all):
        async with embedded(path, services=set()):
            pass
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (new, open_to_all)]
    assert modes == [0o700, 0o755]


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match=f"Cannot create the data directory {tmp_path / 'file' / 'data'}"):
        async with embedded(tmp_path / "file" / "data"):
            pass
