"""Accounts created at once, and what the times of their setups and of the calls to AWS say."""

import asyncio
import math
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tests.benchmarks.setups.arrange import Running
from tests.benchmarks.setups.follow import Followed, follow
from workers.aws.session import CONCURRENT_CREATIONS

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of accounts that were requested at once; times are seconds, memory is megabytes of each worker."""

    began: float
    followed: list[Followed]
    calls: list[Span]
    calls_of: list[list[Span]]
    before: list[float]
    after: list[float]

    @property
    def ended(self) -> float:
        return max(each.ended for each in self.followed)

    def figures(self) -> dict[str, Any]:
        wall = self.ended - self.began
        own = [each.ended - each.requested for each in self.followed]
        outside = [
            1 - covered(calls, each.begun, each.ended) / (each.ended - each.begun)
            for each, calls in zip(self.followed, self.calls_of, strict=True)
        ]
        under_way = [(each.begun, each.ended) for each in self.followed]
        return {
            "accounts": len(self.followed),
            "active": sum(each.error is None for each in self.followed),
            "wall_s": round(wall, 2),
            "per_minute": round(60 * len(self.followed) / wall, 1),
            "wall_outside_aws": round(1 - covered(self.calls, self.began, self.ended) / wall, 3),
            "own_outside_aws": round(statistics.median(outside), 3),
            "under_way_mean": round(sum(end - begin for begin, end in under_way) / wall, 1),
            "under_way_most": most_at_once(under_way),
            "waits": sum(each.waits for each in self.followed),
            "aws_under_way_mean": round(sum(end - begin for begin, end in self.calls) / wall, 1),
            "aws_calls": len(self.calls),
            "median_s": round(statistics.median(own), 2),
            "worst_s": round(max(own), 2),
            "rss_before_mb": self.before,
            "rss_after_mb": self.after,
        }


async def create_at_once(running: Running, names: Iterable[str]) -> Batch:
    """Request the accounts together and follow them to their end."""
    running.aws.finished.clear()
    before = memory(running)
    began = time.time()
    accounts = await asyncio.gather(*(running.api.create_account(name, running.account_type) for name in names))
    followed = await follow(running.api, accounts)
    after = memory(running)
    calls = running.aws.finished
    of = [
        [(call.began, call.ended) for call in running.aws.of(each.aws_account_id)] if each.aws_account_id else []
        for each in followed
    ]
    return Batch(
        began,
        followed,
        [(call.began, call.ended) for call in calls],
        of,
        before,
        after,
    )


def creation_floor(accounts: int, seconds: int) -> int:
    """The seconds that AWS takes to create the accounts, as many at a time as it does, if it never has to wait."""
    return math.ceil(accounts / CONCURRENT_CREATIONS) * seconds


def memory(running: Running) -> list[float]:
    return [round(worker.memory_info().rss / 2**20, 1) for worker in running.workers]


def covered(spans: Iterable[Span], begin: float, end: float) -> float:
    """The seconds between `begin` and `end` that lie in at least one span."""
    total, reached = 0.0, begin
    for first, last in sorted(spans):
        total += max(0.0, min(last, end) - max(first, reached))
        reached = max(reached, min(last, end))
    return total


def most_at_once(spans: Iterable[Span]) -> int:
    """How many spans there are at the moment that has the most; one that ends as another begins is not beside it."""
    steps = sorted(step for begin, end in spans for step in ((begin, 1), (end, -1)))
    return max(accumulate(step for _, step in steps))
