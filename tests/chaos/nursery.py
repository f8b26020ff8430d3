"""A process that forks servers and workers: it has imported them once, so that a restart takes no seconds of CPU.

    python -m tests.chaos.nursery FAILPOINTS

It reads one JSON object a line, {"kind", "environment", "log"}, forks, and answers {"started": pid}; when a child ends
it writes {"ended": pid, "status"}, minus the signal where there was one. When its standard input ends, it kills what is
left and exits: nothing outlives the harness.
"""

import json
import os
import random
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from server.app import serve
from server.config import Settings
from server.embedded.guard import PR_SET_PDEATHSIG, _libc
from server.logs import configure_logging
from tests.chaos import failpoints
from workers import lease
from workers.main import run


def main() -> None:
    wake, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # A terminal's Ctrl-C is the harness's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    pending = b""
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            with suppress(BlockingIOError):
                os.read(wake, 1024)
        reap(children)
        if 0 not in readable:
            continue
        received = os.read(0, 65536)
        if not received:
            break
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            child = start(json.loads(line))
            children.add(child)
            tell({"started": child})
    for child in children:
        os.kill(child, signal.SIGKILL)
    while children:
        os.waitpid(children.pop(), 0)


def reap(children: set[int]) -> None:
    for child in sorted(children):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            children.discard(child)
            tell({"ended": child, "status": os.waitstatus_to_exitcode(status)})


def tell(report: dict[str, int]) -> None:
    os.write(1, json.dumps(report).encode() + b"\n")


def start(order: dict[str, Any]) -> int:
    nursery = os.getpid()
    child = os.fork()
    if child == 0:
        become(order, nursery)
    return child


def become(order: dict[str, Any], nursery: int) -> NoReturn:
    """Be a server or a worker; does not return."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != nursery:
            os._exit(0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(order["environment"])
        # What a fork would otherwise share with its brothers.
        random.seed()
        lease.OWNER = owner(os.getpid())
        settings = Settings.from_environment()
        configure_logging(settings.log_level)
        (run if order["kind"] == "worker" else serve)(settings)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def owner(pid: int) -> str:
    """How a worker with this process id signs its leases."""
    return f"{socket.gethostname()}:{pid}"


if __name__ == "__main__":
    failpoints.install(Path(sys.argv[1]))
    main()
