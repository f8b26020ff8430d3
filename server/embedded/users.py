"""An unprivileged user for PostgreSQL, which refuses to run as root."""

import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from server.embedded.errors import EmbeddedError


@dataclass(frozen=True, slots=True)
class User:
    """Whom to run a command as; `closed` are the directories on its way that the user may not pass through."""

    name: str
    uid: int
    gid: int
    closed: tuple[Path, ...] = ()


def unprivileged_user(paths: Iterable[Path]) -> User | None:
    """For root, an existing user without rights who will have to reach `paths`; None for everybody else."""
    if os.geteuid() != 0:
        return None
    # PostgreSQL looks up its user's name, so that a bare number will not do.
    known = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    entry = known.get("nobody") or next(iter(known.values()), None)
    if entry is None:
        raise EmbeddedError(
            "PostgreSQL refuses to run as root and this system has no other user. "
            "Create one, or run Freehold as an ordinary user."
        )
    closed = {each for path in paths for each in _closed_directories(path, entry.pw_uid, entry.pw_gid)}
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(sorted(closed)))


def _closed_directories(path: Path, uid: int, gid: int) -> list[Path]:
    resolved = path.resolve()
    ways = {each for start in (path.absolute(), resolved) for each in (start, *start.parents)}
    return [each for each in ways if each.is_dir() and not _may_pass(each.stat(), uid, gid)]


def _may_pass(status: os.stat_result, uid: int, gid: int) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
