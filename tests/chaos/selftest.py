"""Whether the harness can fail: short runs, one of the product as it is and one for each fault put into it."""

import os
import subprocess
import sys
from collections.abc import Callable

from tests.chaos.mutants import MUTANTS, VARIABLE

KILLS, SEED = 30, 7


def find_mutants(say: Callable[[str], None]) -> int:
    """0 when the run without a fault passes, and every other one fails and reports its own fault."""
    wrong = [] if _run("") is None else ["the run without a mutant failed"]
    for name, mutant in MUTANTS.items():
        say(f"{name}: {mutant.title}")
        report = _run(name)
        found = [line for line in (report or "").splitlines() if mutant.found_as in line]
        say(f"{name}: " + (f"found: {found[0]}" if found else "NOT FOUND"))
        if not found:
            wrong.append(f"{name} survived")
    say("; ".join(wrong) or f"all {len(MUTANTS)} were found")
    return 1 if wrong else 0


def _run(name: str) -> str | None:
    """The faults that a run with the mutant reports, None when it passes; what it says on its way goes by."""
    command = (sys.executable, "-m", "tests.chaos", "--kills", str(KILLS), "--seed", str(SEED), "--json")
    environment = {**os.environ, VARIABLE: name}
    run = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if run.returncode == 0:
        return None
    lines = run.stderr.splitlines()
    # Where it could not even go on, its traceback says why.
    return "\n".join([line for line in lines if line.startswith("FAULT")] or lines[-20:])
