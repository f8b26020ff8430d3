"""Places in the code at which a process can be made to die, wrapped around the product's functions from outside.

The harness arms one by making a file of its name. The first process that gets there takes the file away, under its
process id, and kills itself: so each arming kills exactly one process.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from arq.connections import ArqRedis
from sqlalchemy.ext.asyncio import AsyncSession

from server import relay
from tests.chaos import fencing, mutants
from workers import executor, main
from workers.assurance import runner
from workers.assurance.stage import Stage
from workers.assurance.stages import STAGES, create_account
from workers.aws.session import Aws
from workers.lease import Lease, R

P = ParamSpec("P")
T = TypeVar("T")

# Module or class, attribute: a failpoint before and one after each.
WRAPPED: tuple[tuple[Any, str, str], ...] = (
    (executor, "claim", "claim"),
    (Lease, "renew", "renew"),
    (Lease, "give_back", "give_back"),
    (create_account, "_declare", "intent"),
    (create_account, "_take_slot", "calling"),
    (create_account, "_reconcile", "reconcile"),
    (create_account, "_requested", "requested"),
    (create_account, "_done", "done"),
    (runner, "start_stage", "start_stage"),
    (runner, "complete_stage", "complete_stage"),
    (runner, "wait_stage", "wait_stage"),
    (ArqRedis, "enqueue_job", "enqueue"),
    (relay, "send_batch", "relay"),
)
CALL = ("call.before", "call.under_way", "call.after")
WRITE = ("write.uncommitted", "write.committed")
STAGE_NAMES = tuple(stage.name for stage in STAGES[STAGES.index(create_account.STAGE) :])
# It is for an account that its role does not lead to, of which the simulator has none.
NEVER_APPLIED = "assume_role"
STAGE_POINTS = tuple(
    f"{name}.{function}.{moment}"
    for name in STAGE_NAMES
    for function in ("check", "apply")
    for moment in ("before", "after")
    if (name, function) != (NEVER_APPLIED, "apply")
)
# Some are passed rarely: `give_back` takes a shutdown first, to which the killer sees, `reconcile` a lost answer.
NAMES = (
    *(f"{name}.{moment}" for _, _, name in WRAPPED for moment in ("before", "after")),
    *CALL,
    *WRITE,
    *STAGE_POINTS,
)
# How long a call to AWS has been under way when its caller dies.
UNDER_WAY_SECONDS = 0.15


class Failpoints:
    """The harness's side: a directory in which armed failpoints are files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)

    def arm(self, name: str) -> None:
        (self.directory / name).touch()

    def is_armed(self, name: str) -> bool:
        return (self.directory / name).exists()

    def disarm(self, name: str) -> bool:
        """Whether the failpoint was still armed."""
        try:
            (self.directory / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def take_hit(self, pid: int) -> str | None:
        """The failpoint at which this process has died, if it has died at one; told once."""
        for hit in self.directory.glob(f"*@{pid}"):
            hit.unlink()
            return hit.name.partition("@")[0]
        return None


def install(directory: Path) -> None:
    """Wrap the product's functions in this process and all it forks."""
    mutants.install()
    fencing.install(directory)

    def reach(name: str) -> None:
        try:
            (directory / name).rename(directory / f"{name}@{os.getpid()}")
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def around(name: str, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @wraps(function)
        async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            reach(f"{name}.before")
            result = await function(*args, **kwargs)
            reach(f"{name}.after")
            return result

        return wrapped

    for place, attribute, name in WRAPPED:
        setattr(place, attribute, around(name, getattr(place, attribute)))
    stages = [
        replace(
            stage, check=around(f"{stage.name}.check", stage.check), apply=around(f"{stage.name}.apply", stage.apply)
        )
        for stage in STAGES
    ]
    _wrap_main(stages)
    _wrap_write(reach)
    _wrap_call(reach)


def _wrap_main(stages: Sequence[Stage]) -> None:
    setattr(main, "working", partial(main.working, stages=stages))  # noqa: B010 - mypy: a partial is no function


def _wrap_write(reach: Callable[[str], None]) -> None:
    write = Lease.write

    @asynccontextmanager
    async def wrapped(self: Lease[R]) -> AsyncIterator[tuple[AsyncSession, R]]:
        async with write(self) as both:
            yield both
            reach("write.uncommitted")
        reach("write.committed")

    setattr(Lease, "write", wrapped)  # noqa: B010


def _wrap_call(reach: Callable[[str], None]) -> None:
    client = Aws._client

    def before(**_: object) -> None:
        reach("call.before")
        asyncio.get_running_loop().call_later(UNDER_WAY_SECONDS, reach, "call.under_way")

    def after(**_: object) -> None:
        reach("call.after")

    @asynccontextmanager
    async def wrapped(self: Aws, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        opened: AbstractAsyncContextManager[Any] = client(self, *args, **kwargs)
        async with opened as given:
            for event, handler in (("before-call", before), ("after-call", after)):
                # With an id it is registered once, however often the client is lent.
                name = f"{event}.organizations.CreateAccount"
                given.meta.events.register(name, handler, unique_id=f"chaos-{event}")
            yield given

    setattr(Aws, "_client", wrapped)  # noqa: B010
