"""What a run has shown, and what of it is a fault."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos import aws, plan
from tests.chaos.followers import Follower
from tests.chaos.plan import Kind
from tests.chaos.users import Users

LONGEST_RECOVERY = 15.0
# Of so many workers killed, one at least was at work.
SOME_WORKERS = 5
# So many kills reach every failpoint that they arm.
MANY_KILLS = 200


@dataclass(kw_only=True)
class Outcome:
    seed: int
    kills: Counter[str]
    # Processes that have died at each place, and the places that nobody came to.
    failpoints: Counter[str]
    unreached: list[str]
    stuck: list[str]
    # What calls to AWS met, and what those to CreateAccount.
    faults: Counter[str]
    created: Counter[str]
    users: Users
    duplicates: list[str]
    repeats: list[str]
    unfinished: list[str]
    recovery: list[float]
    followers: Sequence[Follower]
    missed: int
    # Writes under a lease that had moved on: how many were refused, and those that were not.
    fenced: int
    unfenced: list[str]
    told_twice: list[str]
    surprises: list[str]
    seconds: float
    finish_seconds: float


def summary(outcome: Outcome) -> dict[str, Any]:
    recovery = sorted(outcome.recovery)
    return {
        "kills": outcome.kills.total(),
        "accounts": len(outcome.users.orders),
        "duplicates": len(outcome.duplicates),
        "unfinished": len(outcome.unfinished),
        "recovery_p95_s": round(recovery[int(len(recovery) * 0.95)], 2) if recovery else None,
        "recovery_max_s": round(recovery[-1], 2) if recovery else None,
        "subscribers": len(outcome.followers),
        "reconnects": sum(each.reconnects for each in outcome.followers),
        "gaps": sum(each.gaps for each in outcome.followers) + outcome.missed,
        "out_of_order": sum(each.out_of_order for each in outcome.followers),
    }


def faults(outcome: Outcome) -> list[str]:
    """What the product did wrong, and what a run of some length should have tried and has not; a line each."""
    figures = summary(outcome)
    refusals = Counter(refusal for each in outcome.followers for refusal in each.refusals)
    return [
        *(f"made twice: {each}" for each in outcome.duplicates),
        # AWS refuses the second call for an e-mail, so no duplicate shows it; but it should not have been made.
        *(f"called again for an e-mail that had its account: {each}" for each in outcome.repeats),
        *(f"unfinished: {each}" for each in outcome.unfinished),
        *(f"{figures[name]} {name.replace('_', ' ')}" for name in ("gaps", "out_of_order") if figures[name]),
        *outcome.surprises,
        *outcome.stuck,
        *outcome.unfenced,
        *(f"told twice: {each}" for each in outcome.told_twice),
        *outcome.users.wrong,
        *(f"answered with an error: {each}" for each in outcome.users.api.errors),
        *(f"{count} x refused to a follower: {refusal}" for refusal, count in refusals.items()),
        *_recovery_faults(outcome),
        *(_untried(outcome) if outcome.kills.total() >= plan.FULL else ()),
    ]


def _recovery_faults(outcome: Outcome) -> list[str]:
    if not outcome.recovery:
        killed = outcome.kills[Kind.WORKER]
        return [f"{killed} workers were killed, and nothing was seen to recover"] if killed >= SOME_WORKERS else []
    worst = max(outcome.recovery)
    return [f"a setup stood still for {worst:.1f} s"] if worst > LONGEST_RECOVERY else []


def _untried(outcome: Outcome) -> list[str]:
    """What a run of this length is for."""
    users = outcome.users
    missing = [
        *(
            f"CreateAccount was {kind} {outcome.created[kind]} times, not {times}"
            for kind, times in aws.FIRST_CALLS.items()
            if outcome.created[kind] < times
        ),
        *(["no write of a frozen worker was refused"] if not outcome.fenced and not outcome.unfenced else []),
        *(["no setup was retried"] if not users.retries else []),
        *(["no setup was cancelled"] if not users.cancels else []),
    ]
    if outcome.kills.total() >= MANY_KILLS:
        missing += [f"nobody came to the failpoint {name}" for name in outcome.unreached]
    return [f"not tried: {each}" for each in missing]
