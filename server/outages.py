"""How it looks when PostgreSQL or Redis is away, and how a loop waits: one line when it goes, one when it returns."""

import logging
import math
import random
import time
from collections.abc import Callable

import asyncpg
from redis.exceptions import AuthenticationError as RedisAuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.roles import DatabaseRefused

_AWAY = (
    OSError,  # and with it TimeoutError and every refused, reset or unresolved connection
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    RedisConnectionError,
    PoolTimeoutError,
    # A password is changed in one place first, and then in the other.
    DatabaseRefused,
)
# Of the same families, but about one statement.
_NOT_AWAY = (asyncpg.DataError, asyncpg.QueryCanceledError)
FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0


def is_away(error: BaseException | None) -> bool:
    """Whether the error, or one behind it, says that PostgreSQL or Redis cannot be used just now."""
    while error is not None:
        if isinstance(error, _NOT_AWAY):
            return False
        if isinstance(error, _AWAY) or (isinstance(error, DBAPIError) and error.connection_invalidated):
            return True
        error = error.__cause__
    return False


def cause_of(error: BaseException) -> str:
    """An error for a line of the log: who does not answer and why, without what SQLAlchemy adds of the statement."""
    if isinstance(error, DatabaseRefused):
        return _plain(error)
    if isinstance(error, PoolTimeoutError):
        return "PostgreSQL does not answer: every connection of this process to it is in use"
    if isinstance(error, RedisAuthenticationError):
        return f"Valkey refuses the user or the password in FREEHOLD_REDIS_URL: {_plain(error)}"
    if isinstance(error, RedisError):
        return f"Valkey does not answer: {_plain(error)}"
    while isinstance(error, DBAPIError) and error.orig is not None:
        # SQLAlchemy's own, of which asyncpg's is the cause.
        error = error.orig.__cause__ or error.orig
    return (
        f"PostgreSQL does not answer: {_plain(error)}" if is_away(error) else f"{type(error).__name__}: {_plain(error)}"
    )


def _plain(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split()).rstrip(".") or "nothing came in time"


class Outage:
    """The failures of one loop in a row: logs the first of each kind and the end of them, not each."""

    def __init__(self, logger: logging.Logger, consequence: str) -> None:
        self._logger = logger
        self._consequence = consequence
        self._failures = 0
        self._since = 0.0
        self._told: set[str] = set()

    def begin(self, error: Exception) -> float:
        """Note a failure; returns the seconds to wait before the next try. What is no outage logs its traceback."""
        if not self._failures:
            self._since = time.monotonic()
        self._failures += 1
        cause = cause_of(error)
        # A server that goes away does not answer for several reasons in turn; one that comes back may refuse.
        kind = cause.partition(":")[0]
        if kind not in self._told:
            self._told.add(kind)
            expected = is_away(error) or isinstance(error, RedisError)
            self._logger.warning("%s: %s", self._consequence, cause, exc_info=None if expected else error)
        delay: float = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self._failures - 1, 10))
        # Processes that lost the same server do not all come back in the same instant.
        return delay * random.uniform(0.5, 1)  # noqa: S311 - no secret

    def end(self) -> None:
        if self._failures:
            self._logger.info("%s: over after %.0f s", self._consequence, time.monotonic() - self._since)
        self._failures = 0
        self._told.clear()


class Reports:
    """A fault that every request meets: logs the first, and from time to time how many there were since."""

    def __init__(
        self,
        logger: logging.Logger,
        consequence: str,
        *,
        seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._consequence = consequence
        self._seconds = seconds
        self._clock = clock
        self._again_at = -math.inf
        self._untold = 0

    def tell(self, error: BaseException) -> None:
        now = self._clock()
        if now < self._again_at:
            self._untold += 1
            return
        more = f" (and {self._untold} more since the last line)" if self._untold else ""
        self._logger.warning("%s: %s%s", self._consequence, cause_of(error), more)
        self._again_at, self._untold = now + self._seconds, 0
