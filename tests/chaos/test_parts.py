"""The harness's own instruments: one that sees nothing wrong must be able to."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from tests.chaos.aws import BadAws
from tests.chaos.clients import Api, Follower
from tests.chaos.failpoints import Failpoints
from tests.chaos.plan import Kind, draw
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
    follower = Follower(Api([], ""), "acc")
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


def test_a_seed_repeats_its_plan() -> None:
    assert draw(200, 1) == draw(200, 1)
    assert draw(200, 1) != draw(200, 2)


def test_every_kind_of_kill_is_in_a_short_plan() -> None:
    assert {kill.kind for kill in draw(30, 7)} == set(Kind)
