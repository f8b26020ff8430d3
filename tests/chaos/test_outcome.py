"""Every fault of a run fails it."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.aws import FIRST_CALLS
from tests.chaos.clients import Api
from tests.chaos.followers import SetupFollower
from tests.chaos.outcome import Outcome, faults
from tests.chaos.plan import FULL, Kind
from tests.chaos.users import Users

API = Api([], "")


def clean(**values: Any) -> Outcome:
    """A run of full length in which everything was tried and nothing went wrong, but for these values."""
    users = Users(API, "typ", 1, retries=1, cancels=Counter(CANCELLED=1))
    outcome = Outcome(
        seed=1,
        kills=Counter({Kind.WORKER: FULL}),
        failpoints=Counter(),
        unreached=[],
        stuck=[],
        faults=Counter(),
        created=Counter(FIRST_CALLS),
        users=users,
        duplicates=[],
        repeats=[],
        unfinished=[],
        recovery=[8.0],
        followers=[SetupFollower(api=API, account_id="acc")],
        missed=0,
        fenced=1,
        unfenced=[],
        told_twice=[],
        surprises=[],
        seconds=60.0,
        finish_seconds=20.0,
    )
    return replace(outcome, **values)


def follower(**values: Any) -> SetupFollower:
    return SetupFollower(api=API, account_id="acc", **values)


def test_a_run_without_a_fault_passes() -> None:
    assert faults(clean()) == []


@pytest.mark.parametrize(
    "values",
    [
        {"duplicates": ["a@example.com"]},
        {"repeats": ["a@example.com"]},
        {"unfinished": ["Chaos 1 is ERROR"]},
        {"missed": 1},
        {"followers": [follower(gaps=1)]},
        {"followers": [follower(out_of_order=1)]},
        {"followers": [follower(refusals=["no such account"])]},
        {"surprises": ["worker-1 ended by itself"]},
        {"stuck": ["a setup was not taken up"]},
        {"unfenced": ["written under lease 1 of 2"]},
        {"told_twice": ["COMPLETED"]},
        {"recovery": [8.0, 15.1]},
        {"recovery": []},
        {"users": Users(API, "typ", 1, retries=1, cancels=Counter(CANCELLED=1), wrong=["another account"])},
        {"created": Counter({**FIRST_CALLS, "heard late": 1})},
        {"fenced": 0},
        {"users": Users(API, "typ", 1, cancels=Counter(CANCELLED=1))},
        {"users": Users(API, "typ", 1, retries=1)},
        {"kills": Counter({Kind.WORKER: 200}), "unreached": ["claim.before"]},
    ],
)
def test_one_fault_fails_a_run(values: dict[str, Any]) -> None:
    assert len(faults(clean(**values))) == 1


def test_a_run_of_a_few_kills_need_not_have_tried_everything() -> None:
    few = clean(kills=Counter({Kind.WORKER: 3}), created=Counter(), recovery=[], fenced=0, unreached=["claim.before"])
    assert faults(few) == []


def test_an_account_that_was_cancelled_stays_so() -> None:
    users = Users(API, "typ", 1, cancelled={"acc_1", "acc_2"})
    users.compare({"acc_1": "CANCELLED", "acc_2": "CANCELLED", "acc_3": "ACTIVE"}, {"acc_3": "3@example.com"})
    assert users.wrong == []
    users.compare({"acc_1": "CANCELLED", "acc_2": "ACTIVE", "acc_3": "ACTIVE"}, {"acc_1": "1@example.com"})
    assert len(users.wrong) == 2
