"""Work in every Region of the tenancy, side by side."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from workers.assurance.run import Run

T = TypeVar("T")

SIDE_BY_SIDE = 8


async def in_every_region(run: Run, work: Callable[[Run, str], Awaitable[T]]) -> list[tuple[str, T]]:
    """Region and result, in the tenancy's order. Raises the first error after every Region has come to its end."""
    free = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(region: str) -> T:
        async with free:
            return await work(run, region)

    regions = run.tenancy.regions
    results = await asyncio.gather(*(one(region) for region in regions), return_exceptions=True)
    done: list[tuple[str, T]] = []
    for region, result in zip(regions, results, strict=True):
        if isinstance(result, BaseException):
            raise result
        done.append((region, result))
    return done
