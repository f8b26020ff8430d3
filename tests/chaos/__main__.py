"""The command: `uv run python -m tests.chaos --kills 500 [--seed N] [--json]`."""

import argparse
import asyncio
import json
import logging
import random
import statistics
import sys
import time
from collections import Counter
from typing import Any

from server.embedded.installation import until_stopped
from tests.chaos.harness import Outcome, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Freehold under kills.")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, help="repeat the kill plan of a run")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args()
    seed = random.randrange(2**31) if options.seed is None else options.seed
    # What the clients meet while a server is away is expected, and counted.
    logging.getLogger("gql").setLevel(logging.CRITICAL)
    outcome = asyncio.run(until_stopped(run(options.kills, seed, say)))
    if outcome is None:
        return 130
    figures = summary(outcome)
    show(outcome, figures, sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(figures), flush=True)
    faults = [figures[name] for name in ("duplicates", "unfinished", "gaps", "out_of_order")]
    # AWS refuses the second call for an e-mail, so no duplicate shows it; but it should not have been made.
    return 1 if any((*faults, outcome.repeats)) else 0


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def summary(outcome: Outcome) -> dict[str, Any]:
    recovery = sorted(outcome.recovery)
    return {
        "kills": outcome.kills.total(),
        "accounts": outcome.accounts,
        "duplicates": len(outcome.duplicates),
        "unfinished": len(outcome.unfinished),
        "recovery_p95_s": round(recovery[int(len(recovery) * 0.95)], 2) if recovery else None,
        "recovery_max_s": round(recovery[-1], 2) if recovery else None,
        "subscribers": len(outcome.followers),
        "reconnects": sum(each.reconnects for each in outcome.followers),
        "gaps": sum(each.gaps for each in outcome.followers) + outcome.missed,
        "out_of_order": sum(each.out_of_order for each in outcome.followers),
    }


def show(outcome: Outcome, figures: dict[str, Any], file: Any) -> None:
    recovery = outcome.recovery
    median = f"{statistics.median(recovery):.1f} s median of {len(recovery)}" if recovery else "nothing to recover"
    events = sum(each.cursor for each in outcome.followers)
    refusals = Counter(refusal for each in outcome.followers for refusal in each.refusals)
    lines = [
        f"seed {outcome.seed}, {outcome.seconds:.0f} s; finished {outcome.finish_seconds:.0f} s after the last kill",
        *(f"{name:16}{value}" for name, value in figures.items()),
        f"recovery        {median}",
        f"events          {events}",
        f"repeated calls  {len(outcome.repeats)} (for an e-mail that had its account; AWS refuses them)",
        "kills           " + ", ".join(f"{count} x {kind}" for kind, count in outcome.kills.most_common()),
        "failpoints      " + ", ".join(f"{name} {count}" for name, count in sorted(outcome.failpoints.items())),
        "AWS             " + ", ".join(f"{count} x {kind}" for kind, count in outcome.faults.most_common()),
    ]
    for title, values in (
        ("made twice", outcome.duplicates),
        ("unfinished", outcome.unfinished),
        ("refused", [f"{count} x {refusal}" for refusal, count in refusals.most_common()]),
        ("ended by itself", outcome.surprises),
    ):
        lines += [f"{title:16}{value}" for value in values]
    print("\n".join(lines), file=file, flush=True)


if __name__ == "__main__":
    sys.exit(main())
