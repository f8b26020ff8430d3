"""What is killed, and when: drawn from a seed, so that a run can be had again."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos import failpoints


class Kind(StrEnum):
    """What happens to a process; each counts as one kill."""

    WORKER = "worker kill -9"
    FAILPOINT = "worker or server at a failpoint"
    SERVER = "server kill -9"
    FREEZE = "worker SIGSTOP 11-16 s"
    FREEZE_WRITE = "worker SIGSTOP before a write, until another has its setup"
    TERM = "worker or server SIGTERM"
    POSTGRES = "PostgreSQL kill -9"
    BACKENDS = "half of PostgreSQL's backends"
    VALKEY = "Valkey kill -9, away 2-4 s"
    VALKEY_WIPED = "Valkey kill -9, data wiped, away 2-4 s"


# Of a hundred kills.
SHARES = {
    Kind.WORKER: 43,
    Kind.FAILPOINT: 22,
    Kind.SERVER: 10,
    Kind.FREEZE: 4,
    Kind.FREEZE_WRITE: 5,
    Kind.TERM: 5,
    Kind.BACKENDS: 3,
    Kind.POSTGRES: 3,
    Kind.VALKEY: 2,
    Kind.VALKEY_WIPED: 3,
}
# In every plan that is long enough, in one of `FULL` kills at the latest.
LEAST = {**dict.fromkeys(SHARES, 1), Kind.WORKER: 5, Kind.FREEZE_WRITE: 3}
FULL = 30
FREEZES = (Kind.FREEZE, Kind.FREEZE_WRITE)
# So many of the last kills freeze nothing.
UNFROZEN = 10
SHORTEST_PAUSE, LONGEST_PAUSE = 0.3, 1.5
# How long a process is frozen, or away.
SECONDS = {Kind.FREEZE: (11.0, 16.0), Kind.VALKEY: (2.0, 4.0), Kind.VALKEY_WIPED: (2.0, 4.0)}
TERM_SERVER = 0.3


@dataclass(frozen=True, slots=True)
class Kill:
    """`pause` seconds after the one before. `which`, from 0 to 1, chooses among the processes there are then."""

    kind: Kind
    pause: float
    which: float
    seconds: float = 0.0
    failpoint: str = ""
    server: bool = False


def draw(kills: int, seed: int) -> Sequence[Kill]:
    """The plan of a run: first of all `LEAST`, where there is room, the rest by `SHARES`, in random order."""
    chance = random.Random(seed)
    kinds = list(Counter(LEAST).elements())[:kills]
    kinds += chance.choices(list(SHARES), list(SHARES.values()), k=kills - len(kinds))
    chance.shuffle(kinds)
    _bring_forward(kinds, chance)
    names: list[str] = []
    plan = []
    for kind in kinds:
        if not names:
            # Each place once before any comes again.
            names = chance.sample(failpoints.NAMES, len(failpoints.NAMES))
        plan.append(
            Kill(
                kind,
                chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE),
                chance.random(),
                seconds=chance.uniform(*SECONDS.get(kind, (0.0, 0.0))),
                failpoint=names.pop() if kind is Kind.FAILPOINT else "",
                server=kind is Kind.TERM and chance.random() < TERM_SERVER,
            )
        )
    return plan


def _bring_forward(kinds: list[Kind], chance: random.Random) -> None:
    """Keep freezes out of the end, or the run would go on for them when the last kill is done."""
    early = max(0, len(kinds) - UNFROZEN)
    for place in range(early, len(kinds)):
        others = [each for each in range(early) if kinds[each] not in FREEZES]
        if kinds[place] in FREEZES and others:
            other = chance.choice(others)
            kinds[place], kinds[other] = kinds[other], kinds[place]
