"""The command: `uv run python -m tests.chaos --kills 500 [--seed N] [--json]`, or `--self-test`."""

import argparse
import asyncio
import json
import logging
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from server.embedded.installation import until_stopped
from tests.chaos.followers import SetupFollower
from tests.chaos.harness import run
from tests.chaos.outcome import Outcome, faults, summary
from tests.chaos.selftest import find_mutants


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Freehold under kills.")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, help="repeat the kill plan of a run")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    parser.add_argument("--self-test", action="store_true", help="put faults into the product and demand they be found")
    options = parser.parse_args()
    if options.self_test:
        return find_mutants(say)
    seed = random.randrange(2**31) if options.seed is None else options.seed
    # What the clients meet while a server is away is expected, and counted.
    logging.getLogger("gql").setLevel(logging.CRITICAL)
    outcome = asyncio.run(until_stopped(run(options.kills, seed, say)))
    if outcome is None:
        return 130
    figures, wrong = summary(outcome), faults(outcome)
    show(outcome, figures, wrong, sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(figures), flush=True)
    return 1 if wrong else 0


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def show(outcome: Outcome, figures: dict[str, Any], wrong: Sequence[str], file: Any) -> None:
    recovery, users = outcome.recovery, outcome.users
    median = f"{statistics.median(recovery):.1f} s median of {len(recovery)}" if recovery else "nothing to recover"
    lines = [
        f"seed {outcome.seed}, {outcome.seconds:.0f} s; finished {outcome.finish_seconds:.0f} s after the last kill",
        *(f"{name:16}{value}" for name, value in figures.items()),
        f"recovery        {median}",
        f"events          {sum(each.cursor for each in outcome.followers if isinstance(each, SetupFollower))}",
        f"repeated calls  {len(outcome.repeats)} (for an e-mail that had its account; AWS refuses them)",
        f"frozen writes   {outcome.fenced} refused, {len(outcome.unfenced)} written",
        f"users           repeated {users.repeated} requests, retried {users.retries} setups; cancelled: "
        + ", ".join(f"{count} x {answer}" for answer, count in users.cancels.most_common()),
        "kills           " + ", ".join(f"{count} x {kind}" for kind, count in outcome.kills.most_common()),
        "failpoints      " + ", ".join(f"{name} {count}" for name, count in sorted(outcome.failpoints.items())),
        "not reached     " + (", ".join(outcome.unreached) or "none"),
        "AWS             " + ", ".join(f"{count} x {kind}" for kind, count in outcome.faults.most_common()),
        "CreateAccount   " + ", ".join(f"{count} x {kind}" for kind, count in outcome.created.most_common()),
        *(f"{'FAULT':16}{each}" for each in wrong),
    ]
    print("\n".join(lines), file=file, flush=True)


if __name__ == "__main__":
    sys.exit(main())
