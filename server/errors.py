"""Expected errors, safe to show to whoever caused them.

FreeholdError            something the operator of this installation has to put right; the message says how
└─ ConfigurationError    a setting is missing or wrong
Refused                  a user's input was refused; carries one UserError per fault, and nothing was changed
"""

from dataclasses import dataclass
from enum import StrEnum


class FreeholdError(Exception):
    """Shown as is, without a traceback, by the command line."""


class ConfigurationError(FreeholdError):
    """A `FREEHOLD_*` setting is missing or wrong."""


class UserErrorCode(StrEnum):
    """What was wrong with the input. Codes are stable: programs branch on them, people read the message."""

    VALIDATION = "VALIDATION"
    NOT_FOUND = "NOT_FOUND"
    NAME_IN_USE = "NAME_IN_USE"
    EMAIL_IN_USE = "EMAIL_IN_USE"
    ALIAS_IN_USE = "ALIAS_IN_USE"
    SETUP_IN_PROGRESS = "SETUP_IN_PROGRESS"
    NOTHING_TO_RETRY = "NOTHING_TO_RETRY"
    SETUP_OVER = "SETUP_OVER"
    CREATION_BEGUN = "CREATION_BEGUN"
    GROUP_IN_USE = "GROUP_IN_USE"
    TYPE_IN_USE = "TYPE_IN_USE"
    TYPE_DELETED = "TYPE_DELETED"
    PROTECTED = "PROTECTED"
    POLICY_IN_USE = "POLICY_IN_USE"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    ALREADY_ATTACHED = "ALREADY_ATTACHED"
    NOT_ATTACHED = "NOT_ATTACHED"
    INVALID_DOCUMENT = "INVALID_DOCUMENT"
    LOCKOUT = "LOCKOUT"
    NO_DRIFT = "NO_DRIFT"
    ROLLOUT_IN_PROGRESS = "ROLLOUT_IN_PROGRESS"
    FORBIDDEN = "FORBIDDEN"
    NOT_READY = "NOT_READY"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"


@dataclass(frozen=True, slots=True)
class UserError:
    """One fault in a user's input; `field` is the path below the mutation's `input`, None when no field is at fault."""

    code: UserErrorCode
    message: str
    field: tuple[str, ...] | None = None


class Refused(Exception):
    """Raised by a service function before it changed anything."""

    def __init__(self, *errors: UserError) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


def refuse(code: UserErrorCode, message: str, *field: str) -> Refused:
    """A `Refused` with a single error; `field` is its path below `input`."""
    return Refused(UserError(code, message, field or None))
