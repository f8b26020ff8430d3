"""How fast many accounts are set up: `uv run python -m tests.benchmarks.setups [--accounts 100] [--workers 1,2]`.

For each number of workers a new installation on this machine (a server, the workers, PostgreSQL, Valkey, the AWS
simulator behind a proxy that records its calls) is asked for all accounts at once, and each is followed over the
subscription until it is ACTIVE. `--memory` creates 1,000 accounts in batches with one worker and shows its memory
after each. It exits with 1 when an account did not become ACTIVE.

creation alone       what AWS would take at least to create the accounts, five at a time. The simulator creates one in
                     a moment, AWS in tens of seconds: `--creation-seconds N` has the simulator take as long
outside AWS, wall    of the time from the first request to the last ACTIVE, the share in which no call to AWS was under
                     way for anybody: what Freehold adds, as the simulator answers one call after the other. Between the
                     calls that ask whether an account has been created none is under way, so `--creation-seconds` adds
                     to this too
outside AWS, own     of the time in which a setup was under way, the share in which no call of its own was; the median
                     of the setups. It waits then for Freehold, or for its turn among the five accounts that AWS creates
                     at a time. Waiting for the simulator to answer others first counts as being in a call
under way            setups that a worker has taken up and that are not ACTIVE yet
waits                how often a stage waited, so that its setup gave its slot up until the next attempt
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from typing import Any

from server.embedded.installation import until_stopped
from server.tenancies.service import DEFAULT_REGIONS
from tests.benchmarks.setups.arrange import running
from tests.benchmarks.setups.measure import Batch, create_at_once, creation_floor, memory

ROWS = {
    "accounts": "accounts",
    "active": "ACTIVE at the end",
    "wall_s": "all of them, s",
    "creation_floor_s": "creation alone, s",
    "per_minute": "setups a minute",
    "wall_outside_aws": "outside AWS, wall",
    "own_outside_aws": "outside AWS, own",
    "under_way_mean": "under way, mean",
    "under_way_most": "under way, most",
    "waits": "waits, of all",
    "aws_under_way_mean": "calls under way, mean",
    "aws_calls": "calls to AWS",
    "median_s": "one setup, median s",
    "worst_s": "one setup, worst s",
    "rss_before_mb": "worker MB, before",
    "rss_after_mb": "worker MB, after",
}
# The clients of a Region are shared by all accounts: more Regions would take longer and show no more.
MEMORY_SETUPS, MEMORY_REGIONS = 1000, 2


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    runs = []
    for workers in options.workers:
        say(f"{options.accounts} accounts at once, workers: {workers}")
        async with running(workers, options.regions, options.creation_seconds) as installation:
            batch = await installation.while_up(
                create_at_once(installation, [f"Account {number}" for number in range(options.accounts)])
            )
        tell_errors(batch)
        floor = creation_floor(options.accounts, options.creation_seconds)
        runs.append({"workers": workers, **batch.figures(), "creation_floor_s": floor})
    active = all(run["active"] == run["accounts"] for run in runs)
    return {"regions": options.regions, "creation_s": options.creation_seconds, "runs": runs, "active": active}


async def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    async with running(1, options.regions, options.creation_seconds) as installation:
        found = [{"setups": 0, "rss_mb": memory(installation)[0]}]
        active = True
        for first in range(0, MEMORY_SETUPS, options.accounts):
            names = [f"Account {number}" for number in range(first, first + options.accounts)]
            batch = await installation.while_up(create_at_once(installation, names))
            tell_errors(batch)
            active &= all(each.error is None for each in batch.followed)
            found.append({"setups": first + options.accounts, "rss_mb": batch.after[0]})
            say(f"{found[-1]['setups']:5} setups: worker {found[-1]['rss_mb']} MB, {batch.figures()['per_minute']}/min")
    return {"regions": options.regions, "memory": found, "active": active}


def tell_errors(batch: Batch) -> None:
    for each in batch.followed:
        if each.error is not None:
            say(f"not ACTIVE: {each.error}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show(result: dict[str, Any]) -> None:
    runs = result.get("runs", [])
    if runs:
        print(f"{'workers':24}" + "".join(f"{run['workers']:>18}" for run in runs))
    for name, title in ROWS.items():
        if runs:
            print(f"{title:24}" + "".join(f"{shown(run[name]):>18}" for run in runs))
    for row in result.get("memory", []):
        print(f"{row['setups']:6} setups: worker {row['rss_mb']:.1f} MB")
    print(f"{result['regions']} Regions; {result['cores']} cores, load {result['load']:.1f} at the end")


def shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def numbers(value: str) -> list[int]:
    return [int(each) for each in value.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.setups",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--accounts", type=int, default=100, help="at once; with --memory, in a batch")
    parser.add_argument("--workers", type=numbers, default=[1, 2], help="numbers of worker processes, with commas")
    parser.add_argument(
        "--regions", type=int, help=f"to harden in: {len(DEFAULT_REGIONS)}, {MEMORY_REGIONS} for --memory"
    )
    parser.add_argument(
        "--creation-seconds", type=int, default=0, help="how long AWS takes to create an account; 0: a moment"
    )
    parser.add_argument("--memory", action="store_true", help="the worker's memory over 1,000 setups instead")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args()
    options.regions = options.regions or (MEMORY_REGIONS if options.memory else len(DEFAULT_REGIONS))
    logging.getLogger("gql").setLevel(logging.WARNING)
    result = asyncio.run(until_stopped(measure_memory(options) if options.memory else measure(options)))
    if result is None:
        return 130
    result |= {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    show(result)
    if options.json:
        print(json.dumps(result))
    return 0 if result["active"] else 1


if __name__ == "__main__":
    sys.exit(main())
