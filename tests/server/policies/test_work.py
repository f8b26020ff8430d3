"""That no document and no request keeps a server busy: hostile ones, about a thousand accounts."""

import time
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.policies.checks import check_document
from server.policies.preview import Asked, preview_policy
from server.policies.preview_types import ContextKeyInput, PolicyRequestInput
from server.policies.requests import Target
from server.policies.work import TooMuchWork, Work
from tests.server.fixtures import Owner, Tenant
from tests.server.policies.test_checks import deny
from workers.assurance.stages import STAGES
from workers.catalogue import declare_stages

ACCOUNTS = """
    INSERT INTO account (tenancy_id, name, email, role, origin, status, aws_account_id, account_type_id,
        created_by_kind, created_by_name)
    SELECT $1, 'Account ' || n, 'a' || n || '@example.com', 'MEMBER', 'CREATED', 'ACTIVE',
        lpad((n::bigint * 7919 % 1000000007)::text, 12, '0'),
        (SELECT id FROM account_type WHERE tenancy_id = $1), 'SYSTEM', 'test'
    FROM generate_series(1, 1000) n
"""
REGIONS = [f"eu-west-{number}" for number in range(1, 18)]
LONG = "arn:aws:s3:::" + "0123456789" * 200


def like(key: str, *values: str, operator: str = "StringLike") -> dict[str, Any]:
    return deny("*", Condition={operator: {key: list(values)}})


def in_statements(number: int, condition: dict[str, Any]) -> dict[str, Any]:
    document = deny("*", Condition=condition)
    return {**document, "Statement": document["Statement"] * number}


HOSTILE: dict[str, dict[str, Any]] = {
    "few patterns that tell all accounts apart": like(
        "aws:PrincipalAccount", *(f"*{n}" for n in range(10)), *(f"{n}*" for n in range(10))
    ),
    "many patterns of accounts": like("aws:PrincipalAccount", *(f"*{n}*{n}*x" for n in range(700))),
    "many patterns of Regions": like("aws:RequestedRegion", *(f"*{n:03}*x" for n in range(900))),
    "many patterns of roles": like(
        "aws:PrincipalArn", *(f"arn:aws:iam::*{n}:role/x*" for n in range(290)), operator="ArnLike"
    ),
    "many numbers": like("aws:PrincipalAccount", *map(str, range(1300)), operator="NumericEquals"),
    "many listed accounts": like("aws:PrincipalAccount", *(f"{n:012}" for n in range(600)), operator="StringNotEquals"),
    "many patterns of resources": deny("*", Resource=[f"arn:aws:s3:::*{n}*z" for n in range(380)]),
    "many patterns of roles as resources": deny("*", Resource=[f"arn:aws:iam::*{n}:*o*z" for n in range(290)]),
    "many statements about accounts": in_statements(80, {"StringEquals": {"aws:PrincipalAccount": "x"}}),
    "many statements about Regions": in_statements(80, {"StringEquals": {"aws:RequestedRegion": "x"}}),
    "many policy variables": deny("*", Resource="arn:aws:s3:::" + "${aws:x}" * 1_200),
    "many variables of accounts": deny("*", Resource="arn:aws:s3:::" + "${aws:PrincipalAccount}" * 400),
    "many variables without an end": deny("*", Resource="arn:aws:s3:::" + "${" * 4_900),
}
REQUESTS = [
    PolicyRequestInput(action="s3:GetObject", resource=LONG),
    PolicyRequestInput(action="s3:GetObject", resource="arn:aws:s3:::" + "*1" * 900),
    PolicyRequestInput(action="s3:GetObject", context=[ContextKeyInput(key="aws:x", values=["1x" * 1_024] * 100)]),
]


@pytest.fixture
async def ready(owner: Owner, tenant: Tenant, worker_engine: AsyncEngine) -> Tenant:
    await declare_stages(worker_engine, STAGES)
    await owner.execute("UPDATE tenancy SET regions = $2 WHERE id = $1", tenant.tenancy_id, REGIONS)
    await owner.execute(ACCOUNTS, tenant.tenancy_id)
    return tenant


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_document_keeps_a_server_busy(engine: AsyncEngine, ready: Tenant, name: str) -> None:
    """The CPU of this process for a preview of fifty requests, and for a check of the document."""
    requests = [REQUESTS[each % len(REQUESTS)] for each in range(50)]
    asked = Asked(HOSTILE[name], None, Target(), requests)
    took: list[float] = []
    while not took or (min(took) > 1 and len(took) < 3):
        started = time.process_time()
        found = await preview_policy(engine, ready.tenancy_id, asked)
        took.append(time.process_time() - started)
        assert sum(each.accounts for each in found.requests) == 50 * 1_001
    assert min(took) < 1
    checks: list[float] = []
    while not checks or (min(checks) > 0.5 and len(checks) < 3):
        started = time.process_time()
        await check_document(engine, ready.tenancy_id, HOSTILE[name])
        checks.append(time.process_time() - started)
    assert min(checks) < 0.5


async def test_what_is_not_decided_is_not_known(engine: AsyncEngine, ready: Tenant) -> None:
    document = HOSTILE["many patterns of resources"]
    asked = Asked(document, None, Target(), REQUESTS[:1] * 50)
    found = await preview_policy(engine, ready.tenancy_id, asked)
    assert found.requests[0].after.outcome == "ALLOWED"
    assert found.requests[-1].after.outcome == "UNKNOWN"
    assert found.requests[-1].after.reasons[0].startswith("It takes more to decide than a preview may take")


def test_work_ends_for_good() -> None:
    work = Work(10)
    work.spend(10)
    for _ in range(2):
        with pytest.raises(TooMuchWork):
            work.spend(1)
    assert (work.once("a", lambda: 1), work.once("a", lambda: 2)) == (1, 1)
