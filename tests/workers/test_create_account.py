"""organizations:CreateAccount happens once, wherever a worker dies and whichever answer is lost."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from server.accounts.models import AccountStatus
from server.assurance.models import CreateIntent, IntentState, SetupStatus
from server.leases import StageErrorClass
from tests.workers.proxies import answer, lose_answer, lose_request, refuse
from tests.workers.world import World
from workers.assurance import creation
from workers.assurance.stages import create_account

NEVER = datetime(2020, 1, 1, tzinfo=UTC)
REQUEST = "car-0123456789abcdef0123456789abcdef"


def ended(reason: str) -> dict[str, object]:
    return {"CreateAccountStatus": {"Id": REQUEST, "State": "FAILED", "FailureReason": reason}}


BEGUN: dict[str, object] = {"CreateAccountStatus": {"Id": REQUEST, "State": "IN_PROGRESS"}}


async def requested(world: World, team: UUID, name: str, **values: str) -> tuple[UUID, UUID, str]:
    account_id, setup_id = await world.request(name, team, **values)
    await world.replace_stages(setup_id, create_account.STAGE.name)
    return account_id, setup_id, (await world.account(account_id)).email


async def waits(world: World, setup_id: UUID, code: str) -> None:
    setup = await world.run(setup_id)
    stage = (await world.stages(setup_id))["create_account"]
    assert (setup.status, stage.error_code) == (SetupStatus.WAITING, code), stage.error_message
    await world.make_due(setup_id)


async def fails(world: World, setup_id: UUID, code: str, error_class: StageErrorClass) -> str:
    setup = await world.run(setup_id)
    stage = (await world.stages(setup_id))["create_account"]
    assert (setup.status, stage.error_code, stage.error_class) == (SetupStatus.FAILED, code, error_class)
    return str(stage.error_message)


async def pass_quarantine(world: World, account_id: UUID) -> None:
    await world.set_intent(account_id, called_at=datetime.now(UTC) - timedelta(seconds=21))


async def pass_search(world: World, account_id: UUID) -> None:
    """Let the time pass in which an account is looked for whose e-mail is in use."""
    await world.set_intent(account_id, called_at=datetime.now(UTC) - timedelta(seconds=601))


async def end_requests(world: World) -> None:
    """Let AWS finish what it is creating."""
    async with world.aws.client("organizations", "us-east-1") as organizations:
        for _ in range(2):
            begun = await organizations.list_create_account_status(States=["IN_PROGRESS"])
            for status in begun["CreateAccountStatuses"]:
                await organizations.describe_create_account_status(CreateAccountRequestId=status["Id"])


async def take_email(world: World, email: str) -> None:
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.create_account(Email=email, AccountName="Elsewhere")
    await end_requests(world)
    world.proxy.calls.clear()


async def is_done(world: World, account_id: UUID, email: str) -> None:
    """The account is ACTIVE and AWS has it exactly once."""
    account = await world.account(account_id)
    assert account.status is AccountStatus.ACTIVE
    assert await world.aws_accounts(email) == [account.aws_account_id]
    assert (await world.intent(account_id)).state is IntentState.DONE


async def test_an_account_is_created_with_one_call(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "One call")
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == 1


async def test_a_lost_answer_is_made_good_without_a_second_call(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Lost answer")
    world.proxy.fail("CreateAccount", lose_answer)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    assert (await world.intent(account_id)).state is IntentState.CALLING
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == 1


async def test_a_lost_request_is_repeated_after_the_quarantine_only(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Lost request")
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    assert world.proxy.calls["CreateAccount"] == 1
    await pass_quarantine(world, account_id)
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert (world.proxy.calls["CreateAccount"], (await world.intent(account_id)).calls) == (2, 2)


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_error_tells_nothing_of_the_outcome(world: World, team: UUID, status: int) -> None:
    account_id, setup_id, email = await requested(world, team, f"Server error {status}")
    world.proxy.fail("CreateAccount", refuse("ServiceException", status))
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    assert (await world.intent(account_id)).state is IntentState.CALLING
    await pass_quarantine(world, account_id)
    await world.complete(setup_id)
    await is_done(world, account_id, email)


async def test_killed_before_the_call_the_next_worker_calls(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Killed before")
    async with world.holding(setup_id) as run:
        assert (await create_account._declare(run)).state is IntentState.INTENT
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == 1


async def test_killed_after_the_call_the_next_worker_finds_the_request(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Killed after")
    async with world.holding(setup_id) as run:
        called = await create_account._call(run, await create_account._declare(run))
    assert called is not None
    await world.set_intent(account_id, state=IntentState.CALLING, request_id=None)
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert (await world.intent(account_id)).request_id == called.request_id
    assert world.proxy.calls["CreateAccount"] == 1


async def test_killed_while_asking_the_next_worker_asks_on(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Killed asking")
    async with world.holding(setup_id) as run:
        await create_account._call(run, await create_account._declare(run))
    assert (await world.intent(account_id)).state is IntentState.REQUESTED
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == 1


async def test_an_account_that_shows_without_its_request_is_adopted(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Shows early")
    world.proxy.fail("CreateAccount", lose_answer)
    world.proxy.fail("ListCreateAccountStatus", answer({"CreateAccountStatuses": []}))
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == 1


async def test_a_request_that_aws_no_longer_knows_is_looked_for(world: World, team: UUID) -> None:
    account_id, setup_id, email = await requested(world, team, "Forgotten request")
    world.proxy.fail("DescribeCreateAccountStatus", refuse("CreateAccountStatusNotFoundException"))
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await world.complete(setup_id)
    await is_done(world, account_id, email)
    assert world.proxy.calls["CreateAccount"] == 1


async def test_an_e_mail_in_use_fails_with_advice_and_another_one_succeeds(
    world: World, team: UUID, hardened: UUID
) -> None:
    await take_email(world, "taken@example.com")
    account_id, setup_id, _ = await requested(world, team, "Taken e-mail", email="taken@example.com")
    message = await fails(world, setup_id, "EMAIL_ALREADY_EXISTS", StageErrorClass.NEEDS_PERSON)
    assert message == (
        "AWS already has an account with the e-mail taken@example.com. Give this account another e-mail and retry "
        "the setup, or close the other account."
    )
    assert (await world.intent(account_id)).state is IntentState.FAILED
    assert (await world.account(account_id)).aws_account_id is None
    await world.retry(account_id, email="free@example.com", name="Free e-mail")
    await world.complete(setup_id)
    await is_done(world, account_id, "free@example.com")
    intent = await world.intent(account_id)
    assert (intent.email, intent.account_name, intent.calls) == ("free@example.com", "Free e-mail", 2)


async def test_what_aws_refused_keeps_no_name_from_others(world: World, team: UUID) -> None:
    first, setup_id, email = await requested(world, team, "Sought after", email="sought-after@example.com")
    world.proxy.fail("CreateAccount", answer(BEGUN))
    world.proxy.fail("DescribeCreateAccountStatus", answer(ended("ACCOUNT_LIMIT_EXCEEDED")))
    await fails(world, setup_id, "ACCOUNT_LIMIT_EXCEEDED", StageErrorClass.NEEDS_PERSON)
    await world.change(first, name="Sought after no more", email="other@example.com")
    second, setup_id, _ = await requested(world, team, "Sought after", email=email)
    await world.complete(setup_id)
    await is_done(world, second, email)


async def test_our_own_earlier_account_is_adopted(world: World, team: UUID) -> None:
    """The first call was carried out long after the quarantine; the second is refused because of it."""
    account_id, setup_id, email = await requested(world, team, "Late arrival")
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await world.set_intent(account_id, called_at=NEVER)
    world.proxy.fail("ListAccounts", answer({"Accounts": []}))
    world.proxy.fail("ListCreateAccountStatus", answer({"CreateAccountStatuses": []}))
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.create_account(Email=email, AccountName="Late arrival")
    before = world.proxy.calls["CreateAccount"]
    await world.complete(setup_id)
    assert world.proxy.calls["CreateAccount"] == before + 1
    await is_done(world, account_id, email)


async def test_an_account_that_stands_for_another_is_not_adopted(world: World, team: UUID, hardened: UUID) -> None:
    other = await world.account(hardened)
    _, setup_id, _ = await requested(world, team, "Pretender")
    intent = CreateIntent(email=other.email.upper(), account_name="Hardened", called_at=NEVER)
    async with world.holding(setup_id) as run:
        assert await creation.find_account(run, intent) is None
    setup_id = await world.reassure(hardened)
    async with world.holding(setup_id) as run:
        assert await creation.find_account(run, intent) == other.aws_account_id
    await world.complete(setup_id)


async def test_earlier_refusals_are_not_taken_for_the_outcome_of_a_lost_call(world: World, team: UUID) -> None:
    email = "refused-twice@example.com"
    await take_email(world, email)
    account_id, setup_id, _ = await requested(world, team, "Refused twice", email=email)
    await fails(world, setup_id, "EMAIL_ALREADY_EXISTS", StageErrorClass.NEEDS_PERSON)
    await world.retry(account_id)
    await fails(world, setup_id, "EMAIL_ALREADY_EXISTS", StageErrorClass.NEEDS_PERSON)
    await world.retry(account_id)
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    assert (await world.intent(account_id)).state is IntentState.CALLING
    assert world.proxy.calls["CreateAccount"] == 3
    await pass_quarantine(world, account_id)
    await waits(world, setup_id, "CREATE_ACCOUNT_EMAIL_IN_USE")
    await pass_search(world, account_id)
    await fails(world, setup_id, "EMAIL_ALREADY_EXISTS", StageErrorClass.NEEDS_PERSON)
    assert world.proxy.calls["CreateAccount"] == 4


async def test_a_refusal_that_was_lost_is_asked_for_again_after_the_quarantine_only(world: World, team: UUID) -> None:
    email = "lost-refusal@example.com"
    await take_email(world, email)
    account_id, setup_id, _ = await requested(world, team, "Lost refusal", email=email)
    world.proxy.fail("CreateAccount", lose_answer)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await end_requests(world)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    assert (await world.intent(account_id)).state is IntentState.CALLING
    await pass_quarantine(world, account_id)
    await waits(world, setup_id, "CREATE_ACCOUNT_EMAIL_IN_USE")
    await pass_search(world, account_id)
    await fails(world, setup_id, "EMAIL_ALREADY_EXISTS", StageErrorClass.NEEDS_PERSON)
    assert world.proxy.calls["CreateAccount"] == 2


@pytest.mark.parametrize("seconds", [21, 3600])
async def test_a_request_that_aws_does_not_show_is_not_repeated(world: World, team: UUID, seconds: int) -> None:
    account_id, setup_id, email = await requested(world, team, f"Not shown for {seconds} s")
    async with world.holding(setup_id) as run:
        called = await create_account._call(run, await create_account._declare(run))
    assert called is not None
    await world.set_intent(account_id, called_at=datetime.now(UTC) - timedelta(seconds=seconds))
    world.proxy.fail("DescribeCreateAccountStatus", refuse("CreateAccountStatusNotFoundException"))
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    world.proxy.fail("ListAccounts", answer({"Accounts": []}))
    await world.complete(setup_id)
    assert world.proxy.calls["CreateAccount"] == 1
    assert (await world.intent(account_id)).request_id == called.request_id
    world.proxy.reset()
    await is_done(world, account_id, email)


@pytest.mark.parametrize("known", [True, False])
async def test_the_request_that_made_another_account_is_not_adopted(world: World, team: UUID, known: bool) -> None:
    name = f"Name made twice {known}"
    first, setup_id, first_email = await requested(world, team, name)
    await world.complete(setup_id)
    if not known:
        await world.set_intent(first, request_id=None)
    await world.change(first, name=f"Renamed {known}")
    second, setup_id, email = await requested(world, team, name)
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await pass_quarantine(world, second)
    await world.complete(setup_id)
    await is_done(world, second, email)
    await is_done(world, first, first_email)


async def test_a_request_that_turns_out_to_be_of_another_account_is_set_aside(world: World, team: UUID) -> None:
    """The other account was adopted while its request, which nobody knew, went on."""
    first, setup_id, _ = await requested(world, team, "Name in progress")
    world.proxy.fail("CreateAccount", lose_answer)
    world.proxy.fail("ListCreateAccountStatus", answer({"CreateAccountStatuses": []}))
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await world.complete(setup_id)
    await world.change(first, name="Progressed")
    second, setup_id, email = await requested(world, team, "Name in progress")
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    await pass_quarantine(world, second)
    await world.complete(setup_id)
    await is_done(world, second, email)


async def test_the_refused_request_of_another_account_is_not_adopted(world: World, team: UUID) -> None:
    await take_email(world, "refused-name@example.com")
    first, first_setup, _ = await requested(world, team, "Refused name", email="refused-name@example.com")
    await fails(world, first_setup, "EMAIL_ALREADY_EXISTS", StageErrorClass.NEEDS_PERSON)
    await world.change(first, name="Refused name no more", email="refused-no-more@example.com")
    second, setup_id, email = await requested(world, team, "Refused name")
    world.proxy.fail("CreateAccount", lose_request)
    await waits(world, setup_id, "CREATE_ACCOUNT_OUTCOME_UNKNOWN")
    assert (await world.intent(first)).state is IntentState.FAILED
    await pass_quarantine(world, second)
    await world.complete(setup_id)
    await is_done(world, second, email)
    await world.retry(first)
    await world.complete(first_setup)
    await is_done(world, first, "refused-no-more@example.com")


@pytest.mark.parametrize(
    ("reason", "error_class"),
    [
        ("ACCOUNT_LIMIT_EXCEEDED", StageErrorClass.NEEDS_PERSON),
        ("INVALID_EMAIL", StageErrorClass.NEEDS_PERSON),
        ("PENDING_BUSINESS_VALIDATION", StageErrorClass.NEEDS_PERSON),
        ("SOMETHING_NEW", StageErrorClass.PERMANENT),
    ],
)
async def test_a_refusal_fails_the_stage_with_the_code_of_aws(
    world: World, team: UUID, reason: str, error_class: StageErrorClass
) -> None:
    account_id, setup_id, email = await requested(world, team, f"Refused {reason}")
    world.proxy.fail("CreateAccount", answer(BEGUN))
    world.proxy.fail("DescribeCreateAccountStatus", answer(ended(reason)))
    assert await fails(world, setup_id, reason, error_class)
    assert (await world.intent(account_id)).state is IntentState.FAILED
    await world.retry(account_id)
    await world.complete(setup_id)
    await is_done(world, account_id, email)


@pytest.mark.parametrize("code", ["FinalizingOrganizationException", "TooManyRequestsException"])
async def test_a_refusal_that_passes_is_tried_again(world: World, team: UUID, code: str) -> None:
    account_id, setup_id, email = await requested(world, team, f"Passing {code}")
    world.proxy.fail("CreateAccount", refuse(code))
    await waits(world, setup_id, code)
    assert (await world.intent(account_id)).state is IntentState.INTENT
    await world.complete(setup_id)
    await is_done(world, account_id, email)


async def test_a_constraint_is_told_by_its_reason(world: World, team: UUID) -> None:
    _, setup_id, _ = await requested(world, team, "Constraint")
    reason = "ACCOUNT_NUMBER_LIMIT_EXCEEDED"
    world.proxy.fail("CreateAccount", refuse("ConstraintViolationException", Reason=reason))
    assert "AWS Support" in await fails(world, setup_id, reason, StageErrorClass.NEEDS_PERSON)


async def test_before_there_is_an_organization_the_setup_waits(world: World, team: UUID) -> None:
    _, setup_id, _ = await requested(world, team, "Early bird")
    organization = (await world.tenancy()).aws_organization_id
    await world.change_tenancy(aws_organization_id=None)
    try:
        await waits(world, setup_id, "TENANCY_INITIALIZING")
        assert world.proxy.calls["CreateAccount"] == 0
    finally:
        await world.change_tenancy(aws_organization_id=organization)
    await world.complete(setup_id)
