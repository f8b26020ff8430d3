"""A small process between the supervisor and each of its children, so that no child outlives the supervisor.

    python -I -S -E guard.py SIGNAL GRACE USER GROUP CAPABLE COMMAND...

Standard input is the lifeline: a pipe whose other end only the supervisor holds. When it ends, because the supervisor
closed it or died in whatever way, the command is sent SIGNAL and, after GRACE seconds, killed with all it started.
Should the guard itself be killed, the kernel sends SIGNAL to the command (Linux).

USER and GROUP are numbers to run the command as, or `-` to leave them. With CAPABLE 1 the command keeps, as that user,
the one capability to pass through directories that are closed to it: a virtual environment below /root needs that.

The guard exits as the command did, with 128 + n for signal n. It runs without site-packages: keep it to the standard
library, and small.
"""

import contextlib
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

if sys.platform == "linux":
    # Loaded before the user changes: that user may not be able to read this Python's files.
    import ctypes

    _libc: Any = ctypes.CDLL(None, use_errno=True)
else:
    _libc = None

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
# The weaker first. Containers often withhold CAP_DAC_READ_SEARCH from root and leave it CAP_DAC_OVERRIDE.
CAP_DAC_READ_SEARCH = 2
CAP_DAC_OVERRIDE = 1

# User, group, and whether to keep the capability.
Identity = tuple[int, int, bool]

CANNOT_RUN = 126
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    stop_signal, grace = int(arguments[0]), float(arguments[1])
    user, group, capable, *command = arguments[2:]
    identity = None if user == "-" else (int(user), int(group), capable == "1")

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for each in IGNORED:
        signal.signal(each, signal.SIG_IGN)
    keep_inherited_files_from_the_command()

    guard = os.getpid()
    # Blocked until the child takes signals again: one sent before that would be lost with the guard's SIG_IGN.
    signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    child = os.fork()
    if child == 0:
        run(command, stop_signal, guard, identity=identity)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    return 128 - status if (status := watch(child, stop_signal, grace, wake_read)) < 0 else status


def keep_inherited_files_from_the_command() -> None:
    # The lock on the data directory is among them: it lasts as long as the guards, not as long as what they run.
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - pathlib takes longer to import than all else here
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)


def run(command: list[str], stop_signal: int, guard: int, *, identity: Identity | None) -> NoReturn:
    """Become `command`; does not return."""
    try:
        signal.set_wakeup_fd(-1)
        for each in (*IGNORED, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
        # A group of its own: what it starts can be killed with it, and a terminal's Ctrl-C does not reach it.
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if identity is not None:
            become(*identity)
        if _libc is not None:
            # After the change of user, which clears it.
            _libc.prctl(PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)
            if os.getppid() != guard:
                os._exit(0)
        os.execvp(command[0], command)  # noqa: S606 - the command is the supervisor's
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error}\n")
    finally:
        os._exit(CANNOT_RUN)


def become(user: int, group: int, capable: bool) -> None:
    if capable and _libc is not None:
        _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # Without it access(2), by which PostgreSQL looks for its own programs, takes no notice of capabilities.
        _libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    if capable and _libc is not None and not any(keep(each) for each in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE)):
        sys.stderr.write("no capability to pass through closed directories could be kept\n")


def keep(capability: int) -> bool:
    """Drop every capability but this one and hand it on to the program that is run next."""
    bit = 1 << capability
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # Two structures of effective, permitted, inheritable; the second is for capabilities from 32 on.
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    failed = _libc.capset(header, sets) or _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    return not failed


def watch(child: int, stop_signal: int, grace: float, wake_read: int) -> int:
    """Wait for the child, stopping it when the lifeline ends; its exit code, or minus its signal."""
    lifeline: int | None = 0
    deadline: float | None = None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            # Whatever it left behind in its group goes with it.
            send(-child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            send(-child, signal.SIGKILL)
            deadline = None
        sources = [wake_read] if lifeline is None else [wake_read, lifeline]
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select(sources, [], [], left)
        if wake_read in readable:
            os.read(wake_read, 1024)
        if lifeline in readable and not os.read(lifeline, 1024):
            lifeline, deadline = None, time.monotonic() + grace
            send(child, stop_signal)


def send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
