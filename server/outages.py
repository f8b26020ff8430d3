"""How it looks when PostgreSQL or Redis is away, and how a loop waits: one line when it goes, one when it returns."""

import logging
import random

import asyncpg
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
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


def explain(error: BaseException) -> str:
    """An error in a line for the log, without the statement that SQLAlchemy shows with its values."""
    while isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError | RedisTimeoutError) and not text:
        text = "no answer in time"
    if isinstance(error, PoolTimeoutError):
        text = "every connection of this process is in use"
    return text.rstrip(".") or type(error).__name__


class Outage:
    """Counts the failures of one loop in a row and logs the first and the end of them, not each."""

    def __init__(self, logger: logging.Logger, consequence: str) -> None:
        self._logger = logger
        self._consequence = consequence
        self._failures = 0

    def begin(self, error: Exception) -> float:
        """Note a failure; returns the seconds to wait before the next try. What is no outage logs its traceback."""
        self._failures += 1
        if self._failures == 1:
            expected = is_away(error) or isinstance(error, RedisError)
            self._logger.warning(
                "%s: %s: %s", self._consequence, type(error).__name__, error, exc_info=None if expected else error
            )
        delay: float = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self._failures - 1, 10))
        # Processes that lost the same server do not all come back in the same instant.
        return delay * random.uniform(0.5, 1)  # noqa: S311 - no secret

    def end(self) -> None:
        if self._failures:
            self._logger.info("%s: over after %d tries", self._consequence, self._failures)
        self._failures = 0
