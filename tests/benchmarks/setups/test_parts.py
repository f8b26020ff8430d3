"""The benchmark's own instruments."""

import json

import pytest
from aiohttp import ClientSession, web

from tests.benchmarks.setups.aws import RecordingAws
from tests.benchmarks.setups.follow import Followed
from tests.benchmarks.setups.measure import Batch, Span, covered, creation_floor, most_at_once
from tests.workers.proxies import AwsProxy, answer

ACCOUNT = "111111111111"


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(2, 4)], 2),
        ([(2, 4), (3, 5)], 3),
        ([(2, 8), (3, 5), (6, 7)], 6),
        ([(6, 7), (2, 3)], 2),
        ([(-5, 1), (9, 20)], 2),
        ([(-5, -1), (11, 20)], 0),
    ],
)
def test_time_in_several_spans_counts_once(spans: list[Span], seconds: float) -> None:
    assert covered(spans, 0, 10) == seconds


def test_spans_are_counted_where_they_lie_beside_each_other() -> None:
    assert most_at_once([(0, 2), (2, 4), (1, 3), (5, 6)]) == 2


@pytest.mark.parametrize(("accounts", "seconds", "floor"), [(100, 30, 600), (6, 30, 60), (1, 30, 30), (100, 0, 0)])
def test_five_accounts_are_created_at_a_time(accounts: int, seconds: int, floor: int) -> None:
    assert creation_floor(accounts, seconds) == floor


def test_a_setup_is_outside_while_the_calls_of_others_are_under_way() -> None:
    followed = [Followed(0, 2, 10, ACCOUNT, 0, None), Followed(0, 0, 4, "222222222222", 0, None)]
    batch = Batch(0, followed, [(2, 6), (1, 3)], [[(2, 6)], [(1, 3)]], [100.0], [101.0])
    figures = batch.figures()
    assert figures["wall_outside_aws"] == 0.5
    # Of 8 seconds 4, of 4 seconds 2.
    assert figures["own_outside_aws"] == 0.5
    assert (figures["under_way_mean"], figures["under_way_most"]) == (1.2, 2)
    assert (figures["median_s"], figures["worst_s"], figures["per_minute"]) == (7, 10, 12)


async def test_a_call_is_known_by_its_account() -> None:
    status = {"Id": "car-1", "State": "IN_PROGRESS"}
    keys = f"<AccessKeyId>ASIA1</AccessKeyId><AssumedRoleUser>{ACCOUNT}</AssumedRoleUser>"

    async def issue(*_: object) -> web.Response:
        return web.Response(content_type="text/xml", text=keys)

    async with AwsProxy("").serve() as aws, RecordingAws(aws.url).serve() as recording, ClientSession() as session:
        aws.fail("CreateAccount", answer({"CreateAccountStatus": status}))
        aws.fail("DescribeCreateAccountStatus", answer({"CreateAccountStatus": {**status, "AccountId": ACCOUNT}}))
        aws.fail("MoveAccount", answer({}))
        aws.fail("ListAccounts", answer({"Accounts": []}))
        aws.fail("AssumeRole", issue)
        aws.fail("EnableEbsEncryptionByDefault", issue)
        for operation, asked in (
            ("CreateAccount", {"Email": "a@example.com"}),
            ("DescribeCreateAccountStatus", {"CreateAccountRequestId": "car-1"}),
            ("MoveAccount", {"AccountId": ACCOUNT}),
            ("ListAccounts", {}),
        ):
            headers = {"X-Amz-Target": f"AWSOrganizationsV20161128.{operation}"}
            async with session.post(recording.url, headers=headers, data=json.dumps(asked)):
                pass
        role = f"arn:aws:iam::{ACCOUNT}:role/Role"
        async with session.post(recording.url, data={"Action": "AssumeRole", "RoleArn": role}):
            pass
        lent = {"Authorization": "AWS4-HMAC-SHA256 Credential=ASIA1/20260101/us-east-1/ec2/aws4_request"}
        async with session.post(recording.url, headers=lent, data={"Action": "EnableEbsEncryptionByDefault"}):
            pass
    assert [call.operation for call in recording.of(ACCOUNT)] == [
        "CreateAccount",
        "DescribeCreateAccountStatus",
        "MoveAccount",
        "AssumeRole",
        "EnableEbsEncryptionByDefault",
    ]
    assert all(call.began <= call.ended for call in recording.finished)
