"""Waiting for what nobody announces."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[object]], *, within: float = 5) -> None:
    """Wait until the condition holds; raises TimeoutError when it does not in time."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - see the module
            await asyncio.sleep(0.01)
