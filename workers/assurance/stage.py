"""What a stage is: one step of a setup, declared as data beside the two functions that do its work."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from server.accounts.models import AccountRole
from server.leases import StageError, StageErrorClass
from workers.assurance.run import Run

# The roles of accounts that Freehold creates and works in by assuming a role.
MEMBERS = (AccountRole.MEMBER, AccountRole.SECURITY, AccountRole.LOGGING)


@dataclass(frozen=True, slots=True)
class Control:
    """A recommendation of a benchmark. Numbers move between versions: without a version it names nothing."""

    benchmark: str
    version: str
    id: str


def cis(number: str) -> Control:
    """A control of the CIS Amazon Web Services Foundations Benchmark 7.0."""
    return Control("CIS AWS Foundations", "7.0", number)


class FindingStatus(StrEnum):
    PASS = "PASS"  # noqa: S105 - an outcome, not a secret
    FAIL = "FAIL"
    MANUAL = "MANUAL"
    NOT_APPLICABLE = "NOT_APPLICABLE"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw. `control` is None where the stage needs something that no benchmark asks for."""

    status: FindingStatus
    control: Control | None
    evidence: str


def finding(passes: bool, evidence: str, control: Control | None = None) -> Finding:
    return Finding(FindingStatus.PASS if passes else FindingStatus.FAIL, control, evidence)


@dataclass(frozen=True, slots=True)
class Stage:
    """`check` only reads, `apply` may be repeated at any point: a stage is check, then apply and check if needed."""

    name: str
    title: str
    description: str
    # Every IAM action that check and apply need, and no other; tests hold them to it.
    permissions: tuple[str, ...]
    check: Callable[[Run], Awaitable[Sequence[Finding]]]
    apply: Callable[[Run], Awaitable[None]]
    controls: tuple[Control, ...] = ()
    roles: tuple[AccountRole, ...] = MEMBERS
    # Whether a setup that only brings the account's governance in line has it.
    governs: bool = False
    # Those of the permissions that AWS asks for on the way of another action, without a call of ours.
    implied_permissions: tuple[str, ...] = ()


class StageStopped(Exception):
    """Raised by check or apply that cannot finish now. Without a `delay`, TRANSIENT errors are tried with backoff."""

    def __init__(self, error: StageError, delay: timedelta | None = None) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error
        self.delay = delay


def wait(code: str, message: str, seconds: float | None = None) -> StageStopped:
    """The stage goes on by itself, after `seconds` or with backoff."""
    delay = None if seconds is None else timedelta(seconds=seconds)
    return StageStopped(StageError(code, message, StageErrorClass.TRANSIENT), delay)


def ask(code: str, message: str) -> StageStopped:
    """The stage has failed until somebody does what `message` says and retries."""
    return StageStopped(StageError(code, message, StageErrorClass.NEEDS_PERSON))
