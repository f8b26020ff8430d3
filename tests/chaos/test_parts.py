"""The harness's own instruments: one that sees nothing wrong must be able to."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import ClientError, ClientSession

from tests.chaos.aws import FIRST_CALLS, FIRST_PASS, BadAws
from tests.chaos.clients import Api
from tests.chaos.failpoints import Failpoints
from tests.chaos.fencing import Freezer, Frozen
from tests.chaos.followers import ChangesFollower, SetupFollower
from tests.chaos.plan import FREEZES, FULL, LEAST, UNFROZEN, Kind, draw
from tests.workers.proxies import AwsProxy, answer

ACCOUNT = {"Id": "111111111111", "Name": "A", "Email": "A@example.com"}
REQUEST = {"Id": "car-1", "State": "IN_PROGRESS"}


@pytest.fixture
async def aws() -> AsyncIterator[AwsProxy]:
    async with AwsProxy("").serve() as aws:
        aws.fail("CreateAccount", *[answer({"CreateAccountStatus": REQUEST})] * 2)
        aws.fail("ListAccounts", *[answer({"Accounts": [ACCOUNT]})] * 2)
        aws.fail("ListCreateAccountStatus", *[answer({"CreateAccountStatuses": [REQUEST]})] * 2)
        yield aws


async def call(aws: AwsProxy, operation: str, **arguments: str) -> dict[str, object]:
    headers = {"X-Amz-Target": f"AWSOrganizationsV20161128.{operation}"}
    async with (
        ClientSession() as session,
        session.post(aws.url, headers=headers, data=json.dumps(arguments)) as response,
    ):
        body: dict[str, object] = json.loads(await response.read())
    return body


async def test_a_second_call_for_an_e_mail_is_seen(aws: AwsProxy) -> None:
    async with BadAws(aws.url, seed=1).serve() as bad:
        await call(bad, "CreateAccount", Email="a@example.com", AccountName="A")
        assert bad.repeats == []
        await call(bad, "CreateAccount", Email="A@Example.com", AccountName="A")
        assert bad.repeats == ["a@example.com"]


async def test_a_new_account_is_listed_late(aws: AwsProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    async with BadAws(aws.url, seed=1).serve() as bad:
        await call(bad, "CreateAccount", Email="a@example.com", AccountName="A")
        assert (await call(bad, "ListAccounts"))["Accounts"] == [ACCOUNT]
        assert (await call(bad, "ListCreateAccountStatus"))["CreateAccountStatuses"] == [REQUEST]
        monkeypatch.setattr("tests.chaos.aws.time.monotonic", lambda: -1.0)
        assert (await call(bad, "ListAccounts"))["Accounts"] == []
        assert (await call(bad, "ListCreateAccountStatus"))["CreateAccountStatuses"] == []


@pytest.mark.parametrize(
    ("heard", "gaps", "out_of_order"),
    [([1, 2, 3], 0, 0), ([1, 3], 1, 0), ([2], 1, 0), ([1, 1, 2], 0, 1), ([2, 1], 1, 1), ([1, 5], 3, 0)],
)
async def test_a_follower_counts_what_it_missed_and_what_came_twice(
    heard: list[int], gaps: int, out_of_order: int
) -> None:
    follower = SetupFollower(api=Api([], ""), account_id="acc")
    for sequence in heard:
        follower.take(sequence)
    assert (follower.gaps, follower.out_of_order) == (gaps, out_of_order)


def test_an_armed_failpoint_kills_one_process(tmp_path: Path) -> None:
    failpoints = Failpoints(tmp_path)
    program = (
        "import asyncio, pathlib, sys; from tests.chaos import failpoints; from workers import executor;"
        "failpoints.install(pathlib.Path(sys.argv[1]));"
        "asyncio.run(executor.claim(None, None))"
    )

    failpoints.arm("claim.before")
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    assert process.wait() == -signal.SIGKILL
    assert not failpoints.disarm("claim.before")
    assert failpoints.take_hit(process.pid) == "claim.before"
    assert failpoints.take_hit(process.pid) is None


async def test_the_first_calls_meet_what_every_run_is_to_try(aws: AwsProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.chaos.aws.HEARD_LATE", (0.0, 0.0))
    monkeypatch.setattr("tests.chaos.aws.LONGEST_WAY", 0.0)
    calls = sum(FIRST_CALLS.values()) + FIRST_PASS
    aws.fail("CreateAccount", *[answer({"CreateAccountStatus": REQUEST})] * calls)
    async with BadAws(aws.url, seed=1).serve() as bad:
        bad.bad = True
        for number in range(calls):
            with suppress(ClientError, ValueError):
                await call(bad, "CreateAccount", Email=f"{number}@example.com", AccountName="A")
        assert bad.created == FIRST_CALLS


def test_changes_are_counted_by_position_and_by_account() -> None:
    failed: list[str] = []
    follower = ChangesFollower(api=Api([], ""), on_error=failed.append, cursor=10, sequences={"a": 3})
    changes = [(11, "a", 4), (12, "b", 1), (12, "b", 1), (14, "a", 6), (15, "b", 1)]
    for position, account, sequence in changes:
        told = {"id": account, "status": "ERROR" if account == "b" else "ACTIVE"}
        follower.hear({"accountsChanged": {"position": position, "sequence": sequence, "account": told}})
    # Position 13, and the fifth of a; position 12 came twice, and so did the first of b under another one.
    assert (follower.cursor, follower.gaps, follower.out_of_order) == (15, 2, 2)
    assert failed == ["b"] * 3


def test_a_process_stops_before_a_write_until_it_is_told_to_go_on(tmp_path: Path) -> None:
    freezer = Freezer(tmp_path)
    program = (
        "import pathlib, sys, uuid; from tests.chaos import fencing; from workers.lease import Lease;"
        "from workers.setups import SETUP;"
        "fencing._stop_if_armed(pathlib.Path(sys.argv[1]), Lease(None, SETUP, uuid.UUID(int=7), 3, 0.0))"
    )
    freezer.arm()
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert not freezer.disarm()
    assert freezer.take_frozen() == Frozen(process.pid, UUID(int=7), 3)
    assert freezer.take_frozen() is None
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0


def test_a_seed_repeats_its_plan() -> None:
    assert draw(200, 1) == draw(200, 1)
    assert draw(200, 1) != draw(200, 2)


@pytest.mark.parametrize("seed", [1, 7])
def test_a_short_plan_holds_the_least_of_every_kind_of_kill(seed: int) -> None:
    kinds = Counter(kill.kind for kill in draw(FULL, seed))
    assert set(kinds) == set(Kind)
    assert kinds >= Counter(LEAST)
    assert not {kill.kind for kill in draw(FULL, seed)[-UNFROZEN:]} & set(FREEZES)
