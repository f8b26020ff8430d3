"""Looking at real processes from the outside."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[3]


def child_of(parent: psutil.Process, words: str) -> psutil.Process:
    """The process below `parent` that runs `words` (not its guard)."""
    found = [
        each
        for each in parent.children(recursive=True)
        if words in " ".join(each.cmdline()) and "guard.py" not in " ".join(each.cmdline())
    ]
    assert found, f"no child runs {words}"
    return found[0]


def wait_until_gone(processes: Iterable[psutil.Process], seconds: float = 15) -> list[str]:
    """What is still there after `seconds`, for an assertion that it is nothing."""
    _, alive = psutil.wait_procs(list(processes), timeout=seconds)
    return [str(each) for each in alive if each.status() != psutil.STATUS_ZOMBIE]


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


class RunFailed(AssertionError):
    pass


async def run(
    data_dir: Path, services: Iterable[str], user: int | None = None, environment: Mapping[str, str] | None = None
) -> Run:
    """Start `runner.py` and wait until it says that it is ready; raises RunFailed with its stderr otherwise."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.embedded.runner", str(data_dir), *services],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    if not line:
        _, stderr = await asyncio.to_thread(process.communicate)
        raise RunFailed(stderr.decode())
    return Run(process, json.loads(line), psutil.Process(process.pid).children(recursive=True))
