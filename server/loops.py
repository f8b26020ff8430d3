"""Background loops: how one is stopped."""

import asyncio

AGAIN_SECONDS = 0.2


async def stop(loop: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended.

    It is asked more than once: a cancellation that arrives while a library connects may be swallowed there, and the
    loop would go on for ever.
    """
    while not loop.done():
        loop.cancel()
        await asyncio.wait((loop,), timeout=AGAIN_SECONDS)
    if not loop.cancelled():
        loop.result()
