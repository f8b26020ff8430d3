from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from botocore.exceptions import ClientError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.accounts.models import AccountStatus
from server.assurance.models import SetupStatus, StageStatus
from server.leases import LeaseLost, StageErrorClass
from tests.workers.proxies import REQUEST_ID, refuse
from tests.workers.world import World
from workers.assurance.run import Run
from workers.assurance.runner import INTERNAL, NOT_IN_EFFECT, PATIENCE, STAGE_UNKNOWN, backoff
from workers.assurance.stage import Finding, FindingStatus, Stage, ask, finding, wait
from workers.assurance.tenancy import initializing
from workers.aws.session import ATTEMPTS
from workers.executor import Interrupted

Check = Callable[[Run], Awaitable[Sequence[Finding]]]


async def satisfied(_: Run) -> Sequence[Finding]:
    return [
        finding(True, "so already"),
        Finding(FindingStatus.MANUAL, None, "somebody has to look"),
        Finding(FindingStatus.NOT_APPLICABLE, None, "nothing to look at"),
    ]


async def unsatisfied(_: Run) -> Sequence[Finding]:
    return [finding(False, "the door is open")]


async def nothing(_: Run) -> None:
    return None


def stage(name: str, check: Check = satisfied, apply: Callable[[Run], Awaitable[None]] = nothing) -> Stage:
    return Stage(name=name, title=name, description=name, permissions=(), check=check, apply=apply)


async def prepared(world: World, team: UUID, name: str, *stages: str) -> tuple[UUID, UUID]:
    account_id, setup_id = await world.request(name, team)
    await world.replace_stages(setup_id, *stages)
    return account_id, setup_id


async def test_what_is_so_already_is_not_applied(world: World, team: UUID) -> None:
    async def apply(_: Run) -> None:
        raise AssertionError("applied")

    account_id, setup_id = await prepared(world, team, "So already", "one", "two")
    setup = await world.run(setup_id, [stage("one", apply=apply), stage("two", apply=apply)])
    assert setup.status is SetupStatus.COMPLETED
    assert (await world.account(account_id)).status is AccountStatus.ACTIVE


async def test_stages_run_in_order_and_each_leaves_two_events(world: World, team: UUID) -> None:
    account_id, setup_id = await prepared(world, team, "In order", "one", "two")
    await world.run(setup_id, [stage("two"), stage("one")])
    seen = [(event.stage["name"], event.stage["status"]) for event in await world.events(account_id) if event.stage]
    assert seen == [("one", "RUNNING"), ("one", "COMPLETED"), ("two", "RUNNING"), ("two", "COMPLETED")]


async def test_completed_and_skipped_stages_are_passed_over(world: World, team: UUID) -> None:
    applied: list[str] = []

    def noting(name: str) -> Stage:
        async def check(_: Run) -> Sequence[Finding]:
            return [finding(name in applied, name)]

        async def apply(_: Run) -> None:
            applied.append(name)
            if name == "two" and applied.count("two") == 1:
                raise ask("TEST", "Close the door.")

        return stage(name, check, apply)

    account_id, setup_id = await prepared(world, team, "Passed over", "one", "two")
    stages = [noting("one"), noting("two")]
    assert (await world.run(setup_id, stages)).status is SetupStatus.FAILED
    assert (await world.account(account_id)).status is AccountStatus.ERROR
    await world.retry(account_id)
    assert (await world.run(setup_id, stages)).status is SetupStatus.COMPLETED
    assert applied == ["one", "two"]


async def test_an_error_for_somebody_fails_the_stage_with_what_to_do(world: World, team: UUID) -> None:
    async def apply(_: Run) -> None:
        raise ask("DOOR_OPEN", "Close the door and retry the setup.")

    account_id, setup_id = await prepared(world, team, "Asks", "one", "two")
    setup = await world.run(setup_id, [stage("one", unsatisfied, apply), stage("two")])
    one, two = (await world.stages(setup_id)).values()
    assert (setup.status, one.status, two.status) == (SetupStatus.FAILED, StageStatus.FAILED, StageStatus.PENDING)
    assert (one.error_code, one.error_class) == ("DOOR_OPEN", StageErrorClass.NEEDS_PERSON)
    assert one.error_message == "Close the door and retry the setup."
    assert (await world.account(account_id)).status is AccountStatus.ERROR


@pytest.mark.parametrize(
    ("operation", "code"), [("ListParents", "ChildNotFoundException"), ("MoveAccount", "AccountNotFoundException")]
)
async def test_a_new_account_that_aws_does_not_show_everywhere_is_waited_for(
    world: World, team: UUID, operation: str, code: str
) -> None:
    account_id, setup_id = await world.request(f"Not known to {operation}", team)
    await world.replace_stages(setup_id, "create_account", "organizational_unit")
    world.proxy.fail(operation, *(refuse(code) for _ in range(PATIENCE[code])))
    for _ in range(PATIENCE[code] - 1):
        assert (await world.run(setup_id)).status is SetupStatus.WAITING
        await world.make_due(setup_id)
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    unit = (await world.stages(setup_id))["organizational_unit"]
    assert (unit.error_code, unit.error_class) == (code, StageErrorClass.PERMANENT)
    await world.retry(account_id)
    await world.complete(setup_id)


async def test_throttling_waits_with_backoff_and_then_goes_on(world: World, team: UUID) -> None:
    account_id, setup_id = await world.request("Throttled", team)
    # The SDK itself repeats the call before it gives up.
    world.proxy.fail("MoveAccount", *(refuse("TooManyRequestsException") for _ in range(ATTEMPTS)))
    before = datetime.now(UTC)
    setup = await world.run(setup_id)
    stopped = (await world.stages(setup_id))["organizational_unit"]
    assert (setup.status, stopped.status) == (SetupStatus.WAITING, StageStatus.WAITING)
    assert (stopped.error_code, stopped.error_class) == ("TooManyRequestsException", StageErrorClass.TRANSIENT)
    assert stopped.error_aws_request_id == REQUEST_ID
    assert setup.next_attempt_at == stopped.next_attempt_at
    assert before < setup.next_attempt_at < before + timedelta(minutes=1)
    assert setup.lease_until is None
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert (await world.account(account_id)).status is AccountStatus.ACTIVE
    assert (await world.stages(setup_id))["organizational_unit"].error_code is None


async def test_an_error_of_our_own_is_tried_again_and_then_given_up(
    world: World, team: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(_: Run) -> Sequence[Finding]:
        raise ZeroDivisionError("secret")

    account_id, setup_id = await prepared(world, team, "Own error", "one")
    for _ in range(PATIENCE[INTERNAL] - 1):
        assert (await world.run(setup_id, [stage("one", check)])).status is SetupStatus.WAITING
        await world.make_due(setup_id)
    assert "ZeroDivisionError" in caplog.text
    assert (await world.run(setup_id, [stage("one", check)])).status is SetupStatus.FAILED
    one = (await world.stages(setup_id))["one"]
    assert (one.error_code, one.error_class) == (INTERNAL, StageErrorClass.PERMANENT)
    assert "secret" not in str(one.error_message)
    await world.retry(account_id)
    assert (await world.run(setup_id, [stage("one", check)])).status is SetupStatus.WAITING
    await world.make_due(setup_id)
    assert (await world.run(setup_id, [stage("one")])).status is SetupStatus.COMPLETED


async def test_a_change_that_does_not_show_is_looked_for_again_and_then_given_up(world: World, team: UUID) -> None:
    _, setup_id = await prepared(world, team, "Does not show", "one")
    for _ in range(PATIENCE[NOT_IN_EFFECT] - 1):
        assert (await world.run(setup_id, [stage("one", unsatisfied)])).status is SetupStatus.WAITING
        await world.make_due(setup_id)
    assert (await world.run(setup_id, [stage("one", unsatisfied)])).status is SetupStatus.FAILED
    one = (await world.stages(setup_id))["one"]
    assert one.error_code == NOT_IN_EFFECT
    assert "the door is open" in str(one.error_message)


async def test_only_errors_in_a_row_are_given_up(world: World, team: UUID) -> None:
    errors: list[Exception] = [wait("BUSY", "Wait."), ZeroDivisionError()] * PATIENCE[INTERNAL]
    errors += [ZeroDivisionError() for _ in range(PATIENCE[INTERNAL] - 1)]

    async def check(_: Run) -> Sequence[Finding]:
        raise errors.pop(0)

    _, setup_id = await prepared(world, team, "Not in a row", "one")
    while len(errors) > 1:
        assert (await world.run(setup_id, [stage("one", check)])).status is SetupStatus.WAITING
        await world.make_due(setup_id)
    assert (await world.run(setup_id, [stage("one", check)])).status is SetupStatus.FAILED


async def test_a_stage_that_this_worker_does_not_know_waits_for_one_that_does(world: World, team: UUID) -> None:
    account_id, setup_id = await prepared(world, team, "From the future", "one", "of tomorrow")
    setup = await world.run(setup_id, [stage("one")])
    unknown = (await world.stages(setup_id))["of tomorrow"]
    assert (setup.status, unknown.status) == (SetupStatus.WAITING, StageStatus.WAITING)
    assert (unknown.error_code, unknown.error_class) == (STAGE_UNKNOWN, StageErrorClass.TRANSIENT)
    told = (await world.events(account_id))[-1].stage
    assert told is not None
    assert (told["status"], told["error_code"]) == ("WAITING", STAGE_UNKNOWN)
    for _ in range(PATIENCE[STAGE_UNKNOWN] - 1):
        await world.make_due(setup_id)
        setup = await world.run(setup_id, [stage("one")])
    unknown = (await world.stages(setup_id))["of tomorrow"]
    assert (setup.status, unknown.error_class) == (SetupStatus.FAILED, StageErrorClass.NEEDS_PERSON)
    assert "retry the setup" in str(unknown.error_message)
    await world.retry(account_id)
    assert (await world.run(setup_id, [stage("one"), stage("of tomorrow")])).status is SetupStatus.COMPLETED


async def test_expired_credentials_are_renewed_once(world: World, team: UUID) -> None:
    expired = ClientError({"Error": {"Code": "ExpiredToken"}}, "ListRoles")

    async def check(_: Run) -> Sequence[Finding]:
        raise expired

    account_id, setup_id = await prepared(world, team, "Expired", "one", "two")
    await world.change(account_id, aws_account_id="000000000077")
    waiting = await world.run(setup_id, [stage("one", check), stage("two", check)])
    assert waiting.status is SetupStatus.WAITING
    assert waiting.next_attempt_at <= datetime.now(UTC)
    assert (await world.run(setup_id, [stage("one"), stage("two", check)])).status is SetupStatus.WAITING
    assert (await world.run(setup_id, [stage("one"), stage("two", check)])).status is SetupStatus.FAILED
    two = (await world.stages(setup_id))["two"]
    assert two.error_class is StageErrorClass.NEEDS_PERSON
    assert "credentials Freehold itself runs with" in str(two.error_message)


async def test_a_tenancy_that_is_not_ready_is_looked_at_less_and_less_often(world: World, team: UUID) -> None:
    async def check(run: Run) -> Sequence[Finding]:
        raise initializing(run.tenancy)

    _, setup_id = await prepared(world, team, "Early", "one")
    for _ in range(5):
        await world.run(setup_id, [stage("one", check)])
        await world.make_due(setup_id)
    setup = await world.run(setup_id, [stage("one", check)])
    assert setup.next_attempt_at > datetime.now(UTC) + timedelta(seconds=25)


async def test_a_file_that_is_missing_is_not_taken_for_an_absent_database(world: World, team: UUID) -> None:
    async def check(_: Run) -> Sequence[Finding]:
        raise FileNotFoundError("web identity token")

    _, setup_id = await prepared(world, team, "Missing file", "one")
    assert (await world.run(setup_id, [stage("one", check)])).status is SetupStatus.WAITING
    assert (await world.stages(setup_id))["one"].error_code == INTERNAL


async def test_nothing_is_written_about_an_absent_database(world: World, team: UUID) -> None:
    async def check(_: Run) -> Sequence[Finding]:
        raise PoolTimeoutError

    _, setup_id = await prepared(world, team, "No database", "one")
    with pytest.raises(PoolTimeoutError):
        await world.run(setup_id, [stage("one", check)])
    assert (await world.stages(setup_id))["one"].status is StageStatus.RUNNING


async def test_a_worker_that_shuts_down_stops_between_stages(world: World, team: UUID) -> None:
    async def shut_down(run: Run) -> Sequence[Finding]:
        run.lease.wanted_back = True
        return [finding(True, "so already")]

    _, setup_id = await prepared(world, team, "Shut down", "one", "two")
    with pytest.raises(Interrupted):
        await world.run(setup_id, [stage("one", shut_down), stage("two")])
    assert [each.status for each in (await world.stages(setup_id)).values()] == ["COMPLETED", "PENDING"]


async def test_a_lease_lost_during_a_stage_ends_the_run_without_a_write(world: World, team: UUID) -> None:
    async def lose(run: Run) -> Sequence[Finding]:
        await world.make_due(run.lease.row_id)
        await world.claim(run.lease.row_id)
        return [finding(True, "so already")]

    account_id, setup_id = await prepared(world, team, "Lost", "one")
    with pytest.raises(LeaseLost):
        await world.run(setup_id, [stage("one", lose)])
    assert (await world.stages(setup_id))["one"].status is StageStatus.RUNNING
    assert (await world.account(account_id)).status is AccountStatus.INITIALIZING


def test_backoff_grows_to_a_minute_and_is_spread() -> None:
    assert all(timedelta(seconds=1) <= backoff(1) <= timedelta(seconds=2) for _ in range(50))
    assert all(timedelta(seconds=30) <= backoff(1000) <= timedelta(seconds=60) for _ in range(50))
    assert len({backoff(6) for _ in range(20)}) > 1
