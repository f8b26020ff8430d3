"""How much may be worked out for one question, so that no document, however it is written, keeps a server busy.

A document may compare hundreds of patterns with what is known of each call, in each Region and account. What is worked
out is counted, not timed, so that the same question has the same answer on every machine.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
# A step is about what it takes to compare a character, 0.2 to 0.4 µs: half a second altogether.
MOST_STEPS = 1_500_000
# Threads of the documents' own, and one at a time: a second would only take turns with the first, and with the server.
# Questions have another than changes, which wait for nobody's questions.
CHANGES = ThreadPoolExecutor(1, "policy-changes")
QUESTIONS = ThreadPoolExecutor(1, "policy-questions")


class TooMuchWork(Exception):
    """The question takes more than it may."""


class Work:
    """What is left of the work on one question, and what was worked out for it already."""

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self._left = steps
        self._known: dict[Any, Any] = {}

    def spend(self, steps: int) -> None:
        """Raises TooMuchWork when there are not as many left, now and whenever it is called again."""
        self._left -= steps
        if self._left < 0:
            raise TooMuchWork

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` returned for this key, made but once. Raises TooMuchWork."""
        try:
            found: T = self._known[key]
        except KeyError:
            found = self._known[key] = make()
        return found


async def away(lane: ThreadPoolExecutor, make: Callable[[], T]) -> T:
    """Work something out in the thread of `lane`, as soon as that is free."""
    return await asyncio.get_running_loop().run_in_executor(lane, make)
