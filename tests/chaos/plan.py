"""What is killed, and when: drawn from a seed, so that a run can be had again."""

import random
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
    TERM = "worker or server SIGTERM"
    POSTGRES = "PostgreSQL kill -9"
    BACKENDS = "half of PostgreSQL's backends"
    VALKEY = "Valkey kill -9"
    VALKEY_WIPED = "Valkey kill -9, data wiped"


# Of a hundred kills.
SHARES = {
    Kind.WORKER: 46,
    Kind.FAILPOINT: 22,
    Kind.SERVER: 10,
    Kind.FREEZE: 6,
    Kind.TERM: 5,
    Kind.BACKENDS: 3,
    Kind.POSTGRES: 3,
    Kind.VALKEY: 2,
    Kind.VALKEY_WIPED: 3,
}
SHORTEST_PAUSE, LONGEST_PAUSE = 0.3, 1.5
SHORTEST_FREEZE, LONGEST_FREEZE = 11.0, 16.0
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
    """The plan of a run: every kind at least once where there is room, the rest by `SHARES`, in random order."""
    chance = random.Random(seed)
    kinds = list(SHARES)[:kills]
    kinds += chance.choices(list(SHARES), list(SHARES.values()), k=kills - len(kinds))
    chance.shuffle(kinds)
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
                seconds=chance.uniform(SHORTEST_FREEZE, LONGEST_FREEZE) if kind is Kind.FREEZE else 0.0,
                failpoint=names.pop() if kind is Kind.FAILPOINT else "",
                server=kind is Kind.TERM and chance.random() < TERM_SERVER,
            )
        )
    return plan
