"""Retrying a setup: all that failed or one stage by its name, what completed stays so, and never beside a live one."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.assurance.service import complete_stage, fail_stage, start_stage
from server.graphql.ids import decode
from server.leases import StageError, StageErrorClass
from tests.server.assurance.conftest import Ask
from tests.server.assurance.test_mutations import account_type, created
from tests.server.fixtures import Owner
from workers.lease import claim
from workers.setups import SETUP

__all__ = ["account_type"]

RETRY = """
mutation($input: RetryAccountSetupInput!) {
  retryAccountSetup(input: $input) {
    account { status setup { id status finishedAt stages { name status attempts } } }
    userErrors { code message field }
  }
}
"""
ERROR = StageError("EMAIL_ALREADY_EXISTS", "Choose another.", StageErrorClass.NEEDS_PERSON)


async def failed_at(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine, name: str, position: int
) -> dict[str, Any]:
    """An account whose setup a worker brought as far as the stage at `position`, which failed."""
    account = await created(ask, account_type, name=name)
    setup_id = await owner.fetchval("SELECT id FROM setup WHERE account_id = $1", decode(account["id"], "acc"))
    lease = await claim(worker_engine, SETUP, setup_id)
    assert lease is not None
    for each in range(1, position + 1):
        async with lease.write() as (session, setup):
            await start_stage(session, setup, each)
            if each < position:
                await complete_stage(session, setup, each)
            else:
                await fail_stage(session, setup, each, ERROR)
    return account


async def retry(ask: Ask, account: dict[str, Any], stage: str | None = None) -> dict[str, Any]:
    payload = (await ask(RETRY, input={"accountId": account["id"], "stage": stage}))["retryAccountSetup"]
    result: dict[str, Any] = payload
    return result


def codes(payload: dict[str, Any]) -> list[tuple[str, list[str] | None]]:
    return [(error["code"], error["field"]) for error in payload["userErrors"]]


@pytest.mark.parametrize("by_name", [False, True])
async def test_the_failed_stage_is_retried_and_what_completed_stays_so(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine, by_name: bool
) -> None:
    account = await failed_at(ask, account_type, owner, worker_engine, "Third fails", 3)
    third = account["setup"]["stages"][2]["name"]
    payload = await retry(ask, account, third if by_name else None)
    assert payload["userErrors"] == []
    setup = payload["account"]["setup"]
    assert (payload["account"]["status"], setup["status"], setup["finishedAt"]) == ("INITIALIZING", "PENDING", None)
    stages = [(stage["status"], stage["attempts"]) for stage in setup["stages"]]
    assert stages == [("COMPLETED", 1), ("COMPLETED", 1), ("PENDING", 1), *[("PENDING", 0)] * (len(stages) - 3)]
    # A worker can take it up at once.
    assert await claim(worker_engine, SETUP, decode(setup["id"], "set")) is not None


async def test_a_stage_that_has_not_failed_is_not_retried_by_name(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine
) -> None:
    account = await failed_at(ask, account_type, owner, worker_engine, "Second fails", 2)
    first, second, third, *_ = (stage["name"] for stage in account["setup"]["stages"])
    for stage, code in ((first, "NOTHING_TO_RETRY"), (third, "NOTHING_TO_RETRY"), ("no_such", "NOT_FOUND")):
        assert codes(await retry(ask, account, stage)) == [(code, ["stage"])]
    assert codes(await retry(ask, account, second)) == []


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "WAITING"])
@pytest.mark.parametrize("by_name", [False, True])
async def test_a_live_setup_is_not_retried_though_a_stage_of_it_had_failed(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine, status: str, by_name: bool
) -> None:
    account = await failed_at(ask, account_type, owner, worker_engine, "Live", 2)
    key = decode(account["id"], "acc")
    await owner.execute("UPDATE setup SET status = $1 WHERE account_id = $2", status, key)
    stage = account["setup"]["stages"][1]["name"] if by_name else None
    payload = await retry(ask, account, stage)
    assert (payload["account"], codes(payload)) == (None, [("SETUP_IN_PROGRESS", None)])


async def test_a_setup_that_completed_has_nothing_to_retry(ask: Ask, account_type: str, owner: Owner) -> None:
    account = await created(ask, account_type, name="Complete")
    key = decode(account["id"], "acc")
    await owner.execute("UPDATE stage SET status = 'COMPLETED' FROM setup WHERE setup_id = id AND account_id = $1", key)
    await owner.execute("UPDATE setup SET status = 'COMPLETED' WHERE account_id = $1", key)
    assert codes(await retry(ask, account)) == [("NOTHING_TO_RETRY", None)]


async def test_of_many_retries_at_once_one_is_served(
    ask: Ask, account_type: str, owner: Owner, worker_engine: AsyncEngine
) -> None:
    account = await failed_at(ask, account_type, owner, worker_engine, "Retried once", 2)
    events = "SELECT last_seq FROM account WHERE id = $1"
    before = await owner.fetchval(events, decode(account["id"], "acc"))
    answers = await asyncio.gather(*(retry(ask, account) for _ in range(8)))
    refused = [codes(answer) for answer in answers if answer["userErrors"]]
    assert refused == [[("SETUP_IN_PROGRESS", None)]] * 7
    assert await owner.fetchval(events, decode(account["id"], "acc")) == before + 1
