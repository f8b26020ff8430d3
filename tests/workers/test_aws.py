import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ParamValidationError
from botocore.parsers import ResponseParserError

from server.accounts.models import AccountRole
from server.assurance.models import SetupStatus
from server.config import AwsMode, Settings
from server.errors import ConfigurationError
from server.leases import LeaseLost, StageErrorClass
from tests.workers.proxies import refuse
from tests.workers.world import World
from workers.aws import session
from workers.aws.errors import MEANINGS, explain, is_outcome_unknown
from workers.aws.session import Aws, action

FACTS = {"name": "One", "email": "one@example.com"}


def client_error(code: str, status: int = 400, **fields: str) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": "AWS's words"},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "request-1"},
        **fields,
    }
    return ClientError(response, "MoveAccount")  # type: ignore[arg-type]


async def test_the_simulator_needs_an_address() -> None:
    with pytest.raises(ConfigurationError, match="FREEHOLD_AWS_ENDPOINT_URL"):
        Aws(Settings())


async def test_nothing_in_the_environment_leads_simulator_mode_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nendpoint_url = http://127.0.0.1:1\n")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "ambient",
        "AWS_SECRET_ACCESS_KEY": "ambient",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_PROFILE": "missing",
        "AWS_CONFIG_FILE": str(config),
        "HTTP_PROXY": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    async with Aws(world.settings) as aws, aws.client("sts", "us-east-1") as sts:
        assert sts.meta.endpoint_url == world.settings.aws_endpoint_url
        assert (await sts.get_caller_identity())["Account"]


async def test_real_mode_uses_the_credentials_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ambient")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")
    async with Aws(Settings(aws_mode=AwsMode.REAL)) as aws, aws.client("organizations", "eu-west-1") as organizations:
        assert organizations.meta.endpoint_url == "https://organizations.us-east-1.amazonaws.com"


async def test_one_client_serves_every_account_with_its_own_credentials(world: World, hardened: UUID) -> None:
    security = await world.account_in_role(AccountRole.SECURITY)
    numbers = [(await world.account(hardened)).aws_account_id, security.aws_account_id]
    async with Aws(world.settings) as aws:

        async def reached(number: str | None) -> tuple[object, str]:
            assert number is not None
            credentials = await aws.assume(number, "us-east-1")
            async with aws.client("sts", "us-east-1", credentials) as sts:
                # The others have their turn between opening the block and the call.
                await asyncio.sleep(0)
                return sts, (await sts.get_caller_identity())["Account"]

        answers = await asyncio.gather(*(reached(number) for number in numbers * 3))
        assert [account for _, account in answers] == numbers * 3
        assert len({id(client) for client, _ in answers}) == 1
        async with aws.client("sts", "us-east-1") as own:
            assert (await own.get_caller_identity())["Account"] not in numbers
            assert own is not answers[0][0]


async def test_a_client_of_a_member_is_of_no_use_outside_of_its_block(world: World, hardened: UUID) -> None:
    number = (await world.account(hardened)).aws_account_id
    assert number is not None
    async with world.aws.client("sts", "us-east-1", await world.aws.assume(number, "us-east-1")) as sts:
        pass
    with pytest.raises(RuntimeError, match="outside of the block"):
        await sts.get_caller_identity()
    async with world.aws.client("sts", "us-east-1"):
        with pytest.raises(RuntimeError, match="outside of the block"):
            await sts.get_caller_identity()


async def test_a_client_for_one_call_does_not_repeat_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ATTEMPTS", 2)
    async with Aws(world.settings) as aws:
        for once, calls in ((True, 1), (False, session.ATTEMPTS)):
            world.proxy.reset()
            world.proxy.fail("DescribeOrganization", *(refuse("ServiceException", 500) for _ in range(5)))
            async with aws.client("organizations", "us-east-1", once=once) as organizations:
                with pytest.raises(ClientError):
                    await organizations.describe_organization()
            assert world.proxy.calls["DescribeOrganization"] == calls


async def test_every_attempt_at_a_call_is_asked_of_the_guard(world: World) -> None:
    asked: list[str] = []

    def only_once(action: str) -> None:
        asked.append(action)
        if len(asked) > 1:
            raise LeaseLost

    world.proxy.fail("DescribeOrganization", *(refuse("ServiceException", 500) for _ in range(5)))
    token = session.guard.set(only_once)
    try:
        async with world.aws.client("organizations", "us-east-1") as organizations:
            with pytest.raises(LeaseLost):
                await organizations.describe_organization()
    finally:
        session.guard.reset(token)
    assert asked == ["organizations:DescribeOrganization"] * 2
    assert world.proxy.calls["DescribeOrganization"] == 1


async def test_a_role_is_assumed_once_and_again_when_it_has_expired(world: World, hardened: UUID) -> None:
    number = (await world.account(hardened)).aws_account_id
    assert number is not None
    async with Aws(world.settings) as aws:
        first, second = await asyncio.gather(*(aws.assume(number, "us-east-1") for _ in range(2)))
        assert first is second
        assert world.proxy.calls["AssumeRole"] == 1
        assert first.secret_key not in repr(first)
        assert first.session_token not in repr(first)
        aws.forget(number)
        assert await aws.assume(number, "us-east-1") != first


async def test_only_the_latest_roles_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "KEPT_ROLES", 1)
    roles = (AccountRole.SECURITY, AccountRole.LOGGING)
    first, second = [(await world.account_in_role(role)).aws_account_id for role in roles]
    assert first is not None
    assert second is not None
    async with Aws(world.settings) as aws:
        for number in (first, first, second, first):
            await aws.assume(number, "us-east-1")
    assert world.proxy.calls["AssumeRole"] == 3


async def test_expired_credentials_are_replaced(world: World, hardened: UUID) -> None:
    setup_id = await world.reassure(hardened)
    world.proxy.fail("ListAccountAliases", refuse("ExpiredToken", 403))
    setup = await world.run(setup_id)
    assert setup.status is SetupStatus.WAITING
    before = world.proxy.calls["AssumeRole"]
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert world.proxy.calls["AssumeRole"] == before + 1


def test_calls_map_to_iam_actions() -> None:
    assert action("s3control", "PutPublicAccessBlock") == "s3:PutAccountPublicAccessBlock"
    assert action("iam", "CreateRole") == "iam:CreateRole"


@pytest.mark.parametrize("code", sorted(MEANINGS))
def test_every_meaning_can_be_told(code: str) -> None:
    told = explain(client_error(code), FACTS)
    assert told is not None
    assert (told.code, told.error_class, told.aws_request_id) == (code, MEANINGS[code].error_class, "request-1")
    assert "{" not in told.message
    assert told.message[0].isupper()
    if told.error_class is StageErrorClass.NEEDS_PERSON:
        assert "retry the setup" in told.message.lower()


@pytest.mark.parametrize(
    ("error", "code", "error_class"),
    [
        (client_error("NewlyInvented"), "NewlyInvented", StageErrorClass.PERMANENT),
        (client_error("NewlyInvented", 503), "NewlyInvented", StageErrorClass.TRANSIENT),
        (client_error("NewlyInvented", 429), "NewlyInvented", StageErrorClass.TRANSIENT),
        (client_error("NotImplemented", 501), "NotImplemented", StageErrorClass.PERMANENT),
        (
            client_error("ConstraintViolationException", Reason="OU_NUMBER_LIMIT_EXCEEDED"),
            "OU_NUMBER_LIMIT_EXCEEDED",
            StageErrorClass.NEEDS_PERSON,
        ),
        (
            client_error("ConstraintViolationException", Reason="NEWLY_INVENTED"),
            "NEWLY_INVENTED",
            StageErrorClass.PERMANENT,
        ),
        (EndpointConnectionError(endpoint_url="x"), "EndpointConnectionError", StageErrorClass.TRANSIENT),
        (ResponseParserError("<html>"), "ResponseParserError", StageErrorClass.TRANSIENT),
        (NoCredentialsError(), "NoCredentialsError", StageErrorClass.NEEDS_PERSON),
        (ParamValidationError(report="x"), "ParamValidationError", StageErrorClass.PERMANENT),
    ],
)
def test_errors_beyond_the_table(error: Exception, code: str, error_class: StageErrorClass) -> None:
    told = explain(error, FACTS)
    assert told is not None
    assert (told.code, told.error_class) == (code, error_class)


def test_an_unknown_refusal_is_told_in_the_words_of_aws() -> None:
    told = explain(client_error("NewlyInvented"), FACTS)
    assert told is not None
    assert told.message == "AWS refused MoveAccount: AWS's words"


def test_what_is_no_error_of_aws_is_not_explained() -> None:
    assert explain(ZeroDivisionError(), FACTS) is None


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (client_error("X", 400), False),
        (client_error("X", 500), True),
        (EndpointConnectionError(endpoint_url="x"), True),
        (ResponseParserError("<html>"), True),
        (TimeoutError(), True),
        (NoCredentialsError(), False),
        (ParamValidationError(report="x"), False),
    ],
)
def test_only_an_answer_tells_that_a_call_was_not_carried_out(error: Exception, unknown: bool) -> None:
    assert is_outcome_unknown(error) is unknown
