"""What a worker gives back of the memory that it has freed."""

import asyncio
import sys

import psutil
import pytest

from server.loops import stop
from tests.server.waiting import until
from workers import memory

MEGABYTE = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library can be told to")
async def test_memory_that_was_freed_in_pieces_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TRIM_SECONDS", 0.05)
    process = psutil.Process()
    pieces = [bytes(2_000) for _ in range(50_000)]
    # What is kept in between holds the heap where it is.
    kept = pieces[::500]
    held = process.memory_info().rss
    del pieces

    async def given_back() -> bool:
        return process.memory_info().rss < held - 50 * MEGABYTE

    assert not await given_back()
    trimming = asyncio.create_task(memory.trim_forever())
    await until(given_back)
    await stop(trimming)
    assert len(kept) == 100
