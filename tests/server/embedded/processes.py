"""Looking at real processes from the outside."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[3]


def command_line(process: psutil.Process) -> str:
    """Empty for one that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def child_of(parent: psutil.Process, words: str) -> psutil.Process:
    """The process below `parent` that runs `words` (not its guard)."""
    lines = {each: command_line(each) for each in parent.children(recursive=True)}
    found = [each for each, line in lines.items() if words in line and "guard.py" not in line]
    assert found, f"no child runs {words}"
    return found[0]


def still_there(processes: Iterable[psutil.Process], seconds: float = 15) -> list[str]:
    """Which of the processes have not ended after `seconds`.

    One that is a zombie has ended: where nobody reaps orphans, they stay so.
    """
    deadline = time.monotonic() + seconds
    while (alive := [each for each in processes if _is_alive(each)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [f"{each} {command_line(each)}" for each in alive]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Run:
    """A process of `runner.py`: the embedded services with nobody's code around them."""

    process: subprocess.Popen[bytes]
    facts: dict[str, Any]
    children: list[psutil.Process]

    def end(self, number: signal.Signals, *, group: bool = False) -> int:
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def run(data_dir: Path, *services: str, under: Sequence[str] = ()) -> Iterator[Run]:
    """A run of `runner.py` that has said it is ready; `under` is a command that runs another one."""
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [*under, sys.executable, "-m", "tests.server.embedded.runner", str(data_dir), *services],
            cwd=ROOT,
            # A guard, when there is one in `under`, lives as long as this pipe.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        with process:
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                stderr.seek(0)
                assert line, stderr.read().decode()
                yield Run(process, json.loads(line), psutil.Process(process.pid).children(recursive=True))
            finally:
                process.kill()
