"""Accounts that others create in the organization, under the names of ours: none of them is taken for ours."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from server.assurance.models import IntentState
from tests.workers.proxies import answer, lose_answer, lose_request
from tests.workers.test_create_account import (
    REQUEST,
    end_requests,
    ended,
    is_done,
    pass_quarantine,
    requested,
    take_email,
    waits,
)
from tests.workers.world import World

UNKNOWN = "CREATE_ACCOUNT_OUTCOME_UNKNOWN"


async def create_elsewhere(world: World, name: str, email: str) -> str:
    """Create an account as somebody does in the AWS console; the id of the request."""
    async with world.aws.client("organizations", "us-east-1") as organizations:
        created = await organizations.create_account(Email=email, AccountName=name)
    world.proxy.calls.clear()
    return created["CreateAccountStatus"]["Id"]


async def is_ours(world: World, account_id: UUID, setup_id: UUID, email: str, calls: int) -> None:
    """The setup goes on to an account with its own e-mail, after so many calls."""
    await pass_quarantine(world, account_id)
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == calls


@pytest.mark.parametrize("ended_before", [True, False])
async def test_an_account_of_our_name_and_another_e_mail_is_not_taken(
    world: World, team: UUID, ended_before: bool
) -> None:
    name = f"Named alike {ended_before}"
    foreign = await create_elsewhere(world, name, f"alike-{ended_before}@elsewhere.example")
    if ended_before:
        await end_requests(world)
    account_id, setup_id, email = await requested(world, team, name)
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, UNKNOWN)
    await waits(world, setup_id, UNKNOWN)
    intent = await world.intent(account_id)
    assert (intent.state, intent.request_id, intent.past_requests) == (IntentState.CALLING, None, [foreign])
    await is_ours(world, account_id, setup_id, email, calls=2)


async def test_our_own_request_is_found_behind_one_of_its_name(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Behind another")
    world.proxy.fail("CreateAccount", lose_answer)
    await waits(world, setup_id, UNKNOWN)
    await create_elsewhere(world, "Behind another", "behind@elsewhere.example")
    await is_ours(world, account_id, setup_id, email, calls=0)


async def test_the_refusal_of_a_request_of_our_name_is_not_taken_for_ours(world: World, team: UUID) -> None:
    await take_email(world, "refused@elsewhere.example")
    await create_elsewhere(world, "Refused elsewhere", "refused@elsewhere.example")
    await end_requests(world)
    account_id, setup_id, email = await requested(world, team, "Refused elsewhere")
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, UNKNOWN)
    await is_ours(world, account_id, setup_id, email, calls=2)


async def test_the_refusal_of_a_request_that_was_followed_is_not_taken_for_ours(world: World, team: UUID) -> None:
    foreign = await create_elsewhere(world, "Followed to its refusal", "followed@elsewhere.example")
    account_id, setup_id, email = await requested(world, team, "Followed to its refusal")
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, UNKNOWN)
    world.proxy.fail("DescribeCreateAccountStatus", answer(ended("ACCOUNT_LIMIT_EXCEEDED")))
    await waits(world, setup_id, UNKNOWN)
    intent = await world.intent(account_id)
    assert (intent.state, intent.past_requests) == (IntentState.CALLING, [foreign])
    await is_ours(world, account_id, setup_id, email, calls=2)


async def test_behind_the_refusal_of_another_request_our_account_is_found(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Refused beside")
    world.proxy.fail("CreateAccount", lose_answer)
    await waits(world, setup_id, UNKNOWN)
    begun: dict[str, object] = {
        "Id": REQUEST,
        "AccountName": "Refused beside",
        "State": "IN_PROGRESS",
        "RequestedTimestamp": datetime.now(UTC).timestamp(),
    }
    world.proxy.fail("ListCreateAccountStatus", answer({"CreateAccountStatuses": [begun]}))
    world.proxy.fail("DescribeCreateAccountStatus", answer(ended("ACCOUNT_LIMIT_EXCEEDED")))
    await is_ours(world, account_id, setup_id, email, calls=1)


async def test_an_account_that_aws_does_not_list_yet_is_neither_taken_nor_repeated(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Listed late")
    world.proxy.fail("CreateAccount", lose_answer)
    await waits(world, setup_id, UNKNOWN)
    for seconds in (21, 800):
        await world.set_intent(account_id, called_at=datetime.now(UTC) - timedelta(seconds=seconds))
        world.proxy.fail("ListAccounts", answer({"Accounts": []}))
        await waits(world, setup_id, UNKNOWN)
        assert (await world.account(account_id)).aws_account_id is None
        assert (await world.intent(account_id)).state is IntentState.REQUESTED
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == 1


async def test_the_answer_to_our_own_call_needs_no_proof(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Answered")
    await world.complete(setup_id)
    assert (world.proxy.calls["ListAccounts"], (await world.intent(account_id)).request_answered) == (0, True)
    await is_done(world, account_id, email)
