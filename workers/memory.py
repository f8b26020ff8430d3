"""Memory given back to the system: the C library keeps what was freed, in pieces, and a worker would grow by it."""

import asyncio
import ctypes
from collections.abc import Callable

# A trim takes some milliseconds, in which nothing else is done.
TRIM_SECONDS = 60.0


async def trim_forever() -> None:
    """Give back what was freed, every `TRIM_SECONDS` until cancelled; returns at once without the GNU C library."""
    trim = _malloc_trim()
    while trim is not None:
        await asyncio.sleep(TRIM_SECONDS)
        trim(0)


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found
