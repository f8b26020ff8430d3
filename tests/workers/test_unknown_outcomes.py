"""What a call leaves behind whose outcome nobody learned, and one that AWS refused: whether an account may be there."""

from uuid import UUID

import pytest

from server.assurance.models import IntentState, StageErrorClass
from server.assurance.requests import cancel_account_setup
from server.database import transaction
from server.errors import Refused, UserErrorCode
from tests.workers.proxies import answer, lose_request, refuse
from tests.workers.test_create_account import BEGUN, ended, fails, is_done, pass_quarantine, requested, waits
from tests.workers.test_foreign_accounts import UNKNOWN
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
