"""What a call leaves behind whose outcome nobody learned, and one that AWS refused: whether an account may be there."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from server.assurance.models import IntentState
from server.assurance.requests import cancel_account_setup
from server.database import transaction
from server.errors import Refused, UserErrorCode
from server.leases import StageErrorClass
from tests.workers.proxies import answer, lose_request, refuse
from tests.workers.test_create_account import (
    BEGUN,
    ended,
    fails,
    is_done,
    pass_quarantine,
    pass_search,
    requested,
    take_email,
    waits,
)
from tests.workers.test_foreign_accounts import UNKNOWN, create_elsewhere
from tests.workers.world import World


async def cancel(world: World, setup_id: UUID) -> list[UserErrorCode]:
    """Cancel as the API does; the codes of its refusal."""
    try:
        async with transaction(world.engine) as session:
            await cancel_account_setup(session, world.tenancy_id, setup_id)
    except Refused as refused:
        return [error.code for error in refused.errors]
    return []


async def given_up(world: World, team: UUID, name: str, refusal: str = "TooManyRequestsException") -> tuple[UUID, UUID]:
    """A setup whose first call was lost for good, and whose second one AWS refused."""
    account_id, setup_id, _ = await requested(world, team, name)
    world.proxy.fail("CreateAccount", lose_request, refuse(refusal))
    await waits(world, setup_id, UNKNOWN)
    await pass_quarantine(world, account_id)
    return account_id, setup_id


async def test_after_a_refusal_that_passes_a_setup_can_be_cancelled(world: World, team: UUID) -> None:
    account_id, setup_id, _ = await requested(world, team, "Throttled once")
    world.proxy.fail("CreateAccount", refuse("TooManyRequestsException"))
    await waits(world, setup_id, "TooManyRequestsException")
    assert not (await world.intent(account_id)).outcome_unknown
    assert await cancel(world, setup_id) == []


@pytest.mark.parametrize("reason", ["ACCOUNT_LIMIT_EXCEEDED", "PENDING_BUSINESS_VALIDATION"])
async def test_after_a_refusal_that_does_not_pass_a_setup_can_be_cancelled(
    world: World, team: UUID, reason: str
) -> None:
    _, setup_id, _ = await requested(world, team, f"Given up {reason}")
    world.proxy.fail("CreateAccount", answer(BEGUN))
    world.proxy.fail("DescribeCreateAccountStatus", answer(ended(reason)))
    await fails(world, setup_id, reason, StageErrorClass.NEEDS_PERSON)
    assert await cancel(world, setup_id) == []


async def test_a_refusal_after_a_lost_call_does_not_prove_that_there_is_no_account(world: World, team: UUID) -> None:
    account_id, setup_id = await given_up(world, team, "Lost, then throttled")
    await waits(world, setup_id, "TooManyRequestsException")
    intent = await world.intent(account_id)
    assert (intent.state, intent.outcome_unknown) == (IntentState.INTENT, True)
    assert await cancel(world, setup_id) == [UserErrorCode.CREATION_BEGUN]
    await world.complete(setup_id)
    await is_done(world, account_id, intent.email)


async def test_a_setup_that_failed_after_a_lost_call_is_not_cancelled(world: World, team: UUID) -> None:
    account_id, setup_id = await given_up(world, team, "Lost, then denied", refusal="AccessDeniedException")
    await fails(world, setup_id, "AccessDeniedException", StageErrorClass.NEEDS_PERSON)
    assert await cancel(world, setup_id) == [UserErrorCode.CREATION_BEGUN]
    await world.retry(account_id)
    await world.complete(setup_id)


async def heard_late(world: World, team: UUID, name: str, *, unlisted: int) -> tuple[UUID, UUID, str]:
    """A setup whose first call AWS carries out just before the second; so often AWS does not list what it made."""
    account_id, setup_id, email = await requested(world, team, name)
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, UNKNOWN)
    await create_elsewhere(world, name, email)
    await pass_quarantine(world, account_id)
    world.proxy.fail("ListCreateAccountStatus", answer({"CreateAccountStatuses": []}))
    world.proxy.fail("ListAccounts", *[answer({"Accounts": []})] * unlisted)
    return account_id, setup_id, email


async def test_an_e_mail_in_use_may_be_by_our_own_account_that_aws_lists_late(world: World, team: UUID) -> None:
    account_id, setup_id, email = await heard_late(world, team, "Listed after minutes", unlisted=3)
    for seconds in (0, 300):
        await waits(world, setup_id, "CREATE_ACCOUNT_EMAIL_IN_USE")
        assert (await world.account(account_id)).aws_account_id is None
        await world.set_intent(account_id, called_at=datetime.now(UTC) - timedelta(seconds=seconds))
    assert await cancel(world, setup_id) == [UserErrorCode.CREATION_BEGUN]
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == 1


async def test_an_account_that_is_called_otherwise_by_now_is_adopted(world: World, team: UUID) -> None:
    account_id, setup_id = await given_up(world, team, "Earlier name", refusal="AccessDeniedException")
    await fails(world, setup_id, "AccessDeniedException", StageErrorClass.NEEDS_PERSON)
    intent = await world.intent(account_id)
    await create_elsewhere(world, intent.account_name, intent.email)
    await world.retry(account_id, name="Later name")
    await world.complete(setup_id)
    await is_done(world, account_id, intent.email)


async def test_an_e_mail_that_is_in_use_elsewhere_proves_that_no_call_made_an_account(world: World, team: UUID) -> None:
    await take_email(world, "in-use@elsewhere.example")
    account_id, setup_id, _ = await requested(world, team, "In use elsewhere", email="in-use@elsewhere.example")
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, UNKNOWN)
    await pass_quarantine(world, account_id)
    await waits(world, setup_id, "CREATE_ACCOUNT_EMAIL_IN_USE")
    assert (await world.intent(account_id)).outcome_unknown
    await pass_search(world, account_id)
    await fails(world, setup_id, "EMAIL_ALREADY_EXISTS", StageErrorClass.NEEDS_PERSON)
    assert not (await world.intent(account_id)).outcome_unknown
    assert world.proxy.calls["CreateAccount"] == 2
    assert await cancel(world, setup_id) == []


async def test_an_e_mail_that_aws_does_not_take_proves_it_too(world: World, team: UUID) -> None:
    account_id, setup_id, _ = await requested(world, team, "Mistyped")
    world.proxy.fail("CreateAccount", lose_request, answer(BEGUN))
    await waits(world, setup_id, UNKNOWN)
    await pass_quarantine(world, account_id)
    world.proxy.fail("DescribeCreateAccountStatus", answer(ended("INVALID_EMAIL")))
    await fails(world, setup_id, "INVALID_EMAIL", StageErrorClass.NEEDS_PERSON)
    assert not (await world.intent(account_id)).outcome_unknown
