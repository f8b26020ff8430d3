"""How fast policies act: `uv run python -m tests.benchmarks.policies [--accounts 1000] [--rounds 20]`.

A type of 1,000 accounts, written to the database in bulk, in an installation of its own: a server, a worker,
PostgreSQL, Valkey, and the AWS simulator behind a proxy that records its calls. Measured in turn with the least that
has to be done:

attach    a policy to the type: from before `attachPolicy` is sent to the event of `policyRollout` that says ACTIVE,
          beside one call of AttachPolicy to the same simulator and the INSERT of one row
preview   of a policy on the type, over HTTP, with three requests decided before and after, beside one statement written
          by hand that reads the same rows

It exits with 1 when an attachment took more than one call of AttachPolicy, or a preview missed an account.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
from typing import Any

from server.embedded.installation import until_stopped
from tests.benchmarks.policies.arrange import arranged
from tests.benchmarks.policies.measure import Measured, measure
from tests.benchmarks.reads.report import machine
from tests.benchmarks.setups.arrange import running

REGIONS = 2
AIMS = {"attach": 1000, "preview": 300}
LIMITS = {"attach": "bare call and insert", "preview": "SQL by hand"}


async def run(accounts: int, rounds: int) -> Measured:
    async with running(1, REGIONS, 0) as installation:

        async def work() -> Measured:
            async with arranged(installation, accounts) as found:
                return await measure(found, rounds)

        return await installation.while_up(work())


def figures(measured: Measured, accounts: int) -> dict[str, Any]:
    """Medians and worsts in milliseconds; `ratio` is the median of ours over that of the limit."""
    found: dict[str, Any] = {
        "accounts": accounts,
        "reached": min(measured.reached),
        "attach_calls": max(measured.calls),
    }
    for name, ours, limit in (
        ("attach", measured.attach, measured.attach_limit),
        ("preview", measured.preview, measured.preview_limit),
    ):
        median, least = statistics.median(ours), statistics.median(limit)
        found[name] = {
            "median_ms": round(median, 1),
            "worst_ms": round(max(ours), 1),
            "limit_ms": round(least, 1),
            "ratio": round(median / least, 2),
        }
    return found


def table(found: dict[str, Any]) -> str:
    lines = [f"{'':10}{'median ms':>11}{'worst ms':>11}{'aim ms':>9}{'limit ms':>11}{'ours / limit':>14}  limit"]
    for name, limit in LIMITS.items():
        row = found[name]
        numbers = f"{row['median_ms']:>11}{row['worst_ms']:>11}{AIMS[name]:>9}{row['limit_ms']:>11}{row['ratio']:>14}"
        lines.append(f"{name:10}{numbers}  {limit}")
    lines.append(
        f"{found['accounts']} accounts, of which a preview reached {found['reached']};"
        f" calls of AttachPolicy for each attachment: {found['attach_calls']}"
    )
    lines.append(f"{machine()}, load {os.getloadavg()[0]:.1f} at the end")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.policies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--accounts", type=int, default=1000, help="of the type")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args()
    logging.getLogger("gql").setLevel(logging.WARNING)
    measured = asyncio.run(until_stopped(run(options.accounts, options.rounds)))
    if measured is None:
        return 130
    found = figures(measured, options.accounts)
    print(table(found))
    if options.json:
        print(json.dumps(found))
    return 0 if found["attach_calls"] == 1 and found["reached"] == options.accounts else 1


if __name__ == "__main__":
    sys.exit(main())
