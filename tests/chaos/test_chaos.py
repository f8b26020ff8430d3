"""A short run of the command, with every kind of kill in it."""

import asyncio
import json
import sys

import psutil

from tests.chaos.harness import CHANGES_FOLLOWERS
from tests.running import CLEAN

KILLS = 30
# Some 70 seconds; a machine that is busy with other tests takes longer.
LONGEST_SECONDS = 300


async def test_nothing_is_made_twice_lost_or_told_out_of_order() -> None:
    harness = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", "--kills", str(KILLS), "--seed", "7", "--json"),
        env=CLEAN,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    process = psutil.Process(harness.pid)
    started: set[psutil.Process] = set()

    async def note_what_it_starts() -> None:
        while True:
            started.update(process.children(recursive=True))
            await asyncio.sleep(1)

    noting = asyncio.create_task(note_what_it_starts())
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            out, report = await harness.communicate()
    finally:
        noting.cancel()
        if harness.returncode is None:
            # Its guards and its nursery end what it has started.
            harness.kill()
            await harness.wait()
    assert harness.returncode == 0, report.decode()
    figures = json.loads(out.splitlines()[-1])
    assert figures["kills"] == KILLS
    assert figures["accounts"] > 5
    assert figures["subscribers"] == figures["accounts"] + CHANGES_FOLLOWERS
    assert figures["reconnects"] > 0
    assert {name: figures[name] for name in ("duplicates", "unfinished", "gaps", "out_of_order")} == {
        "duplicates": 0,
        "unfinished": 0,
        "gaps": 0,
        "out_of_order": 0,
    }
    assert [child for child in started if child.is_running()] == []
