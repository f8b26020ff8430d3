"""The units of account types: made, renamed and deleted in AWS as the database has the types."""

import asyncio
import signal
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, update

from server.access.removal import delete_account_type
from server.account_types.models import AccountType, AccountTypeState
from server.account_types.service import rename_account_type
from server.accounts.models import AccountStatus
from server.assurance.requests import update_account
from server.database import transaction
from server.leases import StageErrorClass
from server.policies.requests import Target
from server.tenancies.models import OrganizationTurn
from tests.server.waiting import until
from tests.workers.deaths import die_everywhere
from tests.workers.proxies import Fault, Held, lose_answer, lose_request, refuse
from tests.workers.rollouts import Policies
from tests.workers.test_worker import worker_process
from tests.workers.world import World
from workers.account_types.calls import PERMISSIONS
from workers.assurance.units import list_units
from workers.aws.session import QUARANTINE_SECONDS, Aws
from workers.main import working

CALLS = ("CreateOrganizationalUnit", "UpdateOrganizationalUnit", "DeleteOrganizationalUnit")
# As many calls as there are pages of units.
LISTING = "ListOrganizationalUnitsForParent"


async def get(world: World, type_id: UUID) -> AccountType:
    async with transaction(world.engine) as session:
        return await session.get_one(AccountType, type_id)


async def rename(world: World, type_id: UUID, name: str) -> None:
    async with transaction(world.engine) as session:
        await rename_account_type(session, world.tenancy_id, type_id, name)


async def remove(world: World, type_id: UUID) -> None:
    async with transaction(world.engine) as session:
        await delete_account_type(session, world.tenancy_id, type_id)


async def make_due(world: World, type_id: UUID) -> None:
    """Let the time pass that a waiting type waits for, a dead worker's lease run out, and what it asked be heard."""
    long_ago = AccountType.called_at - timedelta(seconds=QUARANTINE_SECONDS)
    async with transaction(world.engine) as session:
        await session.execute(
            update(AccountType)
            .where(AccountType.id == type_id)
            .values(next_attempt_at=func.now(), lease_until=None, called_at=long_ago)
            .execution_options(synchronize_session=False)
        )
        await session.execute(delete(OrganizationTurn).where(OrganizationTurn.tenancy_id == world.tenancy_id))


async def in_aws(world: World) -> dict[str, str]:
    """The ids of the units below Workloads, by name."""
    workloads = (await world.tenancy()).workloads_ou_id
    assert workloads is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        return await list_units(organizations, workloads)


@pytest.fixture
def policies(world: World) -> Policies:
    return Policies(world)


@pytest.fixture
async def kind(world: World) -> UUID:
    """The id of a type that has its unit."""
    type_id = await world.account_type(f"Kind {uuid4().hex}")
    assert await world.keep_unit(type_id) == {"CreateOrganizationalUnit": 1}
    return type_id


async def test_a_unit_is_made_renamed_and_deleted_with_one_call_each(world: World, kind: UUID) -> None:
    made = await get(world, kind)
    assert (await in_aws(world))[made.name] == made.organizational_unit_id
    assert (made.aws_name, made.next_attempt_at, made.lease_until) == (made.name, None, None)
    name = f"Renamed {uuid4().hex}"
    await rename(world, kind, name)
    assert await world.keep_unit(kind) == {"UpdateOrganizationalUnit": 1}
    assert (await in_aws(world))[name] == made.organizational_unit_id
    assert made.name not in await in_aws(world)
    assert (await get(world, kind)).aws_name == name
    await remove(world, kind)
    assert await world.keep_unit(kind) == {"DeleteOrganizationalUnit": 1}
    assert name not in await in_aws(world)
    gone = await get(world, kind)
    assert gone.state is AccountTypeState.DELETED
    assert (gone.organizational_unit_id, gone.aws_name, gone.next_attempt_at) == (None, None, None)


async def test_a_type_that_aws_never_had_is_deleted_without_a_call(world: World) -> None:
    type_id = await world.account_type(f"Never {uuid4().hex}")
    await remove(world, type_id)
    assert await world.keep_unit(type_id) == {}
    assert (await get(world, type_id)).state is AccountTypeState.DELETED


async def test_already_so_is_success(world: World) -> None:
    """The answer is lost, and AWS is asked again: as after a worker that died before it wrote."""

    async def lose(call: str) -> Counter[str]:
        world.proxy.fail(call, lose_answer)
        calls = await world.keep_unit(type_id)
        # Until it is certain that AWS has heard it nothing else is asked.
        assert await world.keep_unit(type_id) == {}
        assert (await get(world, type_id)).next_attempt_at is not None
        await make_due(world, type_id)
        return calls

    type_id = await world.account_type(f"Lost {uuid4().hex}")
    assert await lose(CALLS[0]) == {CALLS[0]: 1}
    calls = await world.keep_unit(type_id)
    assert (calls[CALLS[0]], {*calls}) == (1, {CALLS[0], LISTING})
    made = await get(world, type_id)
    assert (await in_aws(world))[made.name] == made.organizational_unit_id
    await rename(world, type_id, f"Lost again {uuid4().hex}")
    assert await lose(CALLS[1]) == await world.keep_unit(type_id) == {CALLS[1]: 1}
    assert (await get(world, type_id)).aws_name in await in_aws(world)
    await remove(world, type_id)
    assert await lose(CALLS[2]) == await world.keep_unit(type_id) == {CALLS[2]: 1}
    assert (await get(world, type_id)).state is AccountTypeState.DELETED


async def test_a_unit_made_by_a_call_whose_answer_was_lost_is_renamed_or_deleted(world: World) -> None:
    async def half_made() -> UUID:
        """The worker dies when AWS has made the unit, and nobody knows its id."""
        type_id = await world.account_type(f"Half made {uuid4().hex}")
        await world.keep_unit(type_id)
        async with transaction(world.engine) as session:
            await session.execute(
                update(AccountType).where(AccountType.id == type_id).values(organizational_unit_id=None)
            )
        return type_id

    type_id = await half_made()
    there = (await in_aws(world))[(await get(world, type_id)).name]
    name = f"Renamed meanwhile {uuid4().hex}"
    await rename(world, type_id, name)
    await world.keep_unit(type_id)
    assert (await get(world, type_id)).organizational_unit_id == there
    assert (await in_aws(world))[name] == there
    type_id = await half_made()
    await remove(world, type_id)
    calls = await world.keep_unit(type_id)
    assert (calls[CALLS[2]], {*calls}) == (1, {CALLS[2], LISTING})
    gone = await get(world, type_id)
    assert gone.state is AccountTypeState.DELETED
    assert gone.name not in await in_aws(world)


@pytest.mark.parametrize("fault", [lose_answer, lose_request])
async def test_a_name_given_by_a_call_whose_answer_was_lost_is_taken_back(
    world: World, kind: UUID, fault: Fault
) -> None:
    before, name = await get(world, kind), f"Turned back from {uuid4().hex}"
    await rename(world, kind, name)
    world.proxy.fail(CALLS[1], fault)
    assert await world.keep_unit(kind) == {CALLS[1]: 1}
    await rename(world, kind, before.name)
    assert await world.keep_unit(kind) == {}
    await make_due(world, kind)
    assert await world.keep_unit(kind) == {CALLS[1]: 1}
    kept, there = await get(world, kind), await in_aws(world)
    assert (kept.aws_name, kept.error_code, kept.next_attempt_at) == (before.name, None, None)
    assert there[before.name] == before.organizational_unit_id
    assert name not in there


async def test_two_types_exchange_their_names(world: World) -> None:
    one, other = f"One {uuid4().hex}", f"Other {uuid4().hex}"
    types = [await world.account_type(name) for name in (one, other)]
    for type_id in types:
        await world.keep_unit(type_id)
    units = [(await get(world, type_id)).organizational_unit_id for type_id in types]
    for type_id, name in ((types[0], f"Between {uuid4().hex}"), (types[1], one), (types[0], other)):
        await rename(world, type_id, name)
    await world.keep_unit(types[0])
    waiting = await get(world, types[0])
    assert (waiting.error_code, waiting.error_class) == ("NAME_TAKEN", StageErrorClass.TRANSIENT)
    assert waiting.next_attempt_at is not None
    await make_due(world, types[0])
    # It makes room for the other one.
    await world.keep_unit(types[0])
    assert (await get(world, types[0])).error_code == "NAME_TAKEN"
    await world.keep_unit(types[1])
    await make_due(world, types[0])
    await world.keep_unit(types[0])
    there = await in_aws(world)
    assert [there[other], there[one]] == units
    assert (await get(world, types[0])).error_code is None


async def test_a_new_type_waits_for_the_name_of_one_that_is_being_renamed(world: World, kind: UUID) -> None:
    before = await get(world, kind)
    await rename(world, kind, f"Away {uuid4().hex}")
    successor = await world.account_type(before.name)
    await world.keep_unit(successor)
    waiting = await get(world, successor)
    assert (waiting.error_code, waiting.organizational_unit_id) == ("NAME_TAKEN", None)
    await world.keep_unit(kind)
    await make_due(world, successor)
    await world.keep_unit(successor)
    there = await in_aws(world)
    assert there[(await get(world, kind)).name] == before.organizational_unit_id
    assert there[before.name] == (await get(world, successor)).organizational_unit_id


async def test_a_unit_of_the_name_that_is_nobodys_is_told_and_the_name_tried_again(world: World, kind: UUID) -> None:
    name, workloads = f"By hand {uuid4().hex}", (await world.tenancy()).workloads_ou_id
    assert workloads is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        made = await organizations.create_organizational_unit(ParentId=workloads, Name=name)
        await rename(world, kind, name)
        await world.keep_unit(kind)
        refused = await get(world, kind)
        assert (refused.error_code, refused.error_class) == ("NAME_TAKEN", StageErrorClass.NEEDS_PERSON)
        assert name in str(refused.error_message)
        assert refused.next_attempt_at is None
        strange = made["OrganizationalUnit"]["Id"]
        await organizations.delete_organizational_unit(OrganizationalUnitId=strange)
    await rename(world, kind, name)
    await world.keep_unit(kind)
    assert (await in_aws(world))[name] == refused.organizational_unit_id
    assert (await get(world, kind)).error_code is None


async def test_a_unit_whose_answer_was_lost_is_its_types_and_its_name_waited_for(world: World, kind: UUID) -> None:
    name = f"Answer lost {uuid4().hex}"
    other = await world.account_type(name)
    world.proxy.fail(CALLS[0], lose_answer)
    await world.keep_unit(other)
    await rename(world, other, f"Away {uuid4().hex}")
    await rename(world, kind, name)
    await world.keep_unit(kind)
    waiting = await get(world, kind)
    assert (waiting.error_code, waiting.error_class) == ("NAME_TAKEN", StageErrorClass.TRANSIENT)
    assert waiting.next_attempt_at is not None
    await make_due(world, other)
    await world.keep_unit(other)
    await make_due(world, kind)
    await world.keep_unit(kind)
    kept, there = await get(world, kind), await in_aws(world)
    assert there[name] == kept.organizational_unit_id
    assert there[(await get(world, other)).name] == (await get(world, other)).organizational_unit_id
    assert (kept.error_code, kept.next_attempt_at) == (None, None)


async def test_a_unit_that_somebody_deleted_is_made_anew_under_its_new_name(world: World, kind: UUID) -> None:
    before = (await get(world, kind)).organizational_unit_id
    assert before is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.delete_organizational_unit(OrganizationalUnitId=before)
    name = f"Anew {uuid4().hex}"
    await rename(world, kind, name)
    await world.keep_unit(kind)
    assert (await in_aws(world))[name] == (await get(world, kind)).organizational_unit_id != before


async def test_what_passes_is_tried_again_and_what_does_not_is_told(world: World, kind: UUID) -> None:
    await rename(world, kind, f"Throttled {uuid4().hex}")
    world.proxy.fail("UpdateOrganizationalUnit", refuse("ConcurrentModificationException"))
    await world.keep_unit(kind)
    waiting = await get(world, kind)
    assert (waiting.error_class, waiting.attempts) == (StageErrorClass.TRANSIENT, 1)
    assert waiting.next_attempt_at is not None
    world.proxy.fail("UpdateOrganizationalUnit", refuse("AccessDeniedException"))
    await make_due(world, kind)
    await world.keep_unit(kind)
    denied = await get(world, kind)
    assert (denied.error_code, denied.error_class) == ("AccessDeniedException", StageErrorClass.NEEDS_PERSON)
    assert "updateAccountType" in str(denied.error_message)
    assert denied.next_attempt_at is None


@pytest.mark.parametrize("code", ["AccessDeniedException", "TooManyRequestsException"])
@pytest.mark.parametrize("meanwhile", [False, True])
async def test_a_refusal_is_told_no_more_when_a_setup_has_made_the_unit(
    world: World, code: str, *, meanwhile: bool
) -> None:
    """It makes it after the refusal, or before the refusal is written down."""
    type_id, held = await world.account_type(f"Refused once {uuid4().hex}"), Held(refuse(code))
    _, setup_id = await world.request(f"Refused once {uuid4().hex[:8]}", type_id)
    async with world.holding(setup_id) as run, Aws(world.settings) as aws:
        await world.assure(run, "create_account")
        world.proxy.fail(CALLS[0], held)
        keeping = asyncio.create_task(replace(world, aws=aws).keep_unit(type_id))
        async with asyncio.timeout(20):
            await held.reached.wait()
        if not meanwhile:
            held.release()
            await keeping
            assert (await get(world, type_id)).error_code == code
        async with transaction(world.engine) as session:
            await session.execute(delete(OrganizationTurn).where(OrganizationTurn.tenancy_id == world.tenancy_id))
        await world.assure(run, "organizational_unit")
        held.release()
        await keeping
    if (await get(world, type_id)).next_attempt_at is not None:
        await make_due(world, type_id)
        assert await world.keep_unit(type_id) == {}
    kept = await get(world, type_id)
    assert (await in_aws(world))[kept.name] == kept.organizational_unit_id
    assert (kept.error_code, kept.error_class, kept.next_attempt_at) == (None, None, None)
    await world.complete(setup_id)


async def test_what_is_asked_while_aws_refuses_is_tried_at_once(world: World, kind: UUID) -> None:
    """The error is of the name before, and written onto nothing else."""
    held, name = Held(refuse("AccessDeniedException")), f"Corrected {uuid4().hex}"
    world.proxy.fail("UpdateOrganizationalUnit", held)
    await rename(world, kind, f"Refused {uuid4().hex}")
    working = asyncio.create_task(world.keep_unit(kind))
    async with asyncio.timeout(20):
        await held.reached.wait()
    await rename(world, kind, name)
    held.release()
    assert await working == {"UpdateOrganizationalUnit": 2}
    kept = await get(world, kind)
    assert (kept.aws_name, kept.error_code, kept.next_attempt_at) == (name, None, None)
    assert name in await in_aws(world)


async def test_a_type_is_deleted_when_its_last_account_has_left_and_protects_it_until_then(
    world: World, policies: Policies, kind: UUID
) -> None:
    account_id, setup_id = await world.request(f"Leaves {uuid4().hex[:8]}", kind)
    policy_id = await policies.create(Target(account_type_id=kind))
    await policies.roll_out(policy_id)
    await world.complete(setup_id)
    other = await world.account_type(f"Stays {uuid4().hex}")
    async with transaction(world.engine) as session:
        await update_account(session, world.tenancy_id, account_id, account_type_id=other)
    await remove(world, kind)
    await world.keep_unit(kind)
    waiting = await get(world, kind)
    assert (waiting.state, waiting.error_class) == (AccountTypeState.DELETING, StageErrorClass.TRANSIENT)
    assert (await world.account(account_id)).name in str(waiting.error_message)
    # What is rolled out meanwhile leaves it in force.
    await policies.update(policy_id, description="Another")
    await policies.roll_out(policy_id)
    assert await policies.targets(policy_id) == [waiting.organizational_unit_id]
    assert await policies.states(policy_id) == ["ACTIVE", "ACTIVE"]
    await world.complete((await world.setup_of(account_id)).id)
    await make_due(world, kind)
    await world.keep_unit(kind)
    gone = await get(world, kind)
    assert (gone.state, gone.error_code) == (AccountTypeState.DELETED, None)
    assert await policies.states(policy_id) == ["ACTIVE"]
    assert await policies.targets(policy_id) == []
    assert (await policies.events(policy_id))[-1] == ("ACTIVE", "DETACHED")
    await policies.delete(policy_id)
    await policies.roll_out(policy_id)
    assert await policies.find(policy_id) is None


async def test_a_policy_that_comes_too_late_for_its_type_is_rolled_out_all_the_same(
    world: World, policies: Policies, kind: UUID
) -> None:
    """AWS answers when the attachment is gone already, with its type."""
    policy_id = await policies.create()
    await policies.roll_out(policy_id)
    held = Held()
    world.proxy.fail("AttachPolicy", held)
    await policies.attach(policy_id, Target(account_type_id=kind))
    rolling = asyncio.create_task(policies.roll_out(policy_id))
    async with asyncio.timeout(20):
        await held.reached.wait()
    await remove(world, kind)
    async with transaction(world.engine) as session:
        await session.execute(delete(OrganizationTurn).where(OrganizationTurn.tenancy_id == world.tenancy_id))
    async with world.aws.client("organizations", "us-east-1") as organizations:
        unit_id = (await get(world, kind)).organizational_unit_id
        assert unit_id is not None
        await organizations.delete_organizational_unit(OrganizationalUnitId=unit_id)
    deleting = asyncio.create_task(world.keep_unit(kind))
    held.release()
    await asyncio.gather(rolling, deleting)
    assert (await get(world, kind)).state is AccountTypeState.DELETED
    assert await policies.states(policy_id) == ["ACTIVE"]
    assert (await policies.get(policy_id)).next_attempt_at is None


async def test_closed_accounts_make_room_and_strangers_are_told(world: World, kind: UUID) -> None:
    account_id, setup_id = await world.request(f"Closed {uuid4().hex[:8]}", kind)
    await world.complete(setup_id)
    await world.change(account_id, status=AccountStatus.CLOSED)
    tenancy, unit_id = await world.tenancy(), (await get(world, kind)).organizational_unit_id
    number = (await world.account(account_id)).aws_account_id
    assert unit_id is not None
    assert number is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        made = await organizations.create_organizational_unit(ParentId=unit_id, Name="By hand")
        await remove(world, kind)
        await world.keep_unit(kind)
        refused = await get(world, kind)
        assert (refused.state, refused.error_class) == (AccountTypeState.DELETING, StageErrorClass.NEEDS_PERSON)
        assert "By hand" in str(refused.error_message)
        assert refused.next_attempt_at is None
        parents = await organizations.list_parents(ChildId=number)
        assert [parent["Id"] for parent in parents["Parents"]] == [tenancy.suspended_ou_id]
        strange = made["OrganizationalUnit"]["Id"]
        await organizations.delete_organizational_unit(OrganizationalUnitId=strange)
    await remove(world, kind)
    await world.keep_unit(kind)
    assert (await get(world, kind)).state is AccountTypeState.DELETED


async def test_a_worker_that_dies_anywhere_leaves_a_unit_to_the_next_one(
    world: World, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: dict[UUID, UUID] = {}

    async def new() -> UUID:
        return await world.account_type(f"Dies {uuid4().hex}")

    async def renamed() -> UUID:
        type_id = await new()
        await world.keep_unit(type_id)
        await rename(world, type_id, f"Dies again {uuid4().hex}")
        return type_id

    async def there(type_id: UUID) -> None:
        found = await get(world, type_id)
        assert (await in_aws(world))[found.name] == found.organizational_unit_id
        assert (found.next_attempt_at, found.lease_until, found.error_code) == (None, None, None)

    async def removed() -> UUID:
        type_id = await new()
        await world.keep_unit(type_id)
        attached[type_id] = await policies.create(Target(account_type_id=type_id))
        await policies.roll_out(attached[type_id])
        await remove(world, type_id)
        return type_id

    async def gone(type_id: UUID) -> None:
        found = await get(world, type_id)
        assert (found.state, found.next_attempt_at, found.lease_until) == (AccountTypeState.DELETED, None, None)
        assert found.name not in await in_aws(world)
        assert await policies.states(attached[type_id]) == ["ACTIVE"]
        assert [state for _, state in await policies.events(attached[type_id])].count("DETACHED") == 1

    async def carry_on(type_id: UUID) -> None:
        if (await get(world, type_id)).next_attempt_at is not None:
            await make_due(world, type_id)
            await world.keep_unit(type_id)

    for arrange, end, call in ((new, there, CALLS[0]), (renamed, there, CALLS[1]), (removed, gone, CALLS[2])):
        places = await die_everywhere(
            world, monkeypatch, CALLS, arrange=arrange, work=world.keep_unit, carry_on=carry_on, end=end
        )
        called = [f"before-call {call}", f"after-call {call}"]
        assert places == ["uncommitted", "committed", *called, "uncommitted", "committed"]


async def test_a_killed_worker_is_replaced_and_the_unit_deleted(world: World, kind: UUID) -> None:
    held = Held()
    world.proxy.fail("DeleteOrganizationalUnit", held)
    async with worker_process(world.settings) as process:
        await remove(world, kind)
        async with asyncio.timeout(20):
            await held.reached.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    held.release()
    await make_due(world, kind)

    async def gone() -> bool:
        return (await get(world, kind)).state is AccountTypeState.DELETED

    async with working(world.settings):
        await until(gone, within=30)


async def test_every_permission_is_declared_and_used(world: World) -> None:
    """A type that is made, renamed to a name that another has still, and deleted with a closed account in its unit."""
    types = [await world.account_type(f"Used {uuid4().hex}") for _ in range(2)]
    used = [await world.keep_unit(type_id) for type_id in types]
    account_id, setup_id = await world.request(f"Used {uuid4().hex[:8]}", types[0])
    await world.complete(setup_id)
    taken = (await get(world, types[1])).name
    await rename(world, types[1], f"Used too {uuid4().hex}")
    await rename(world, types[0], taken)
    used.append(await world.keep_unit(types[0]))
    await world.change(account_id, status=AccountStatus.CLOSED)
    await remove(world, types[0])
    used.append(await world.keep_unit(types[0]))
    assert {f"organizations:{call}" for calls in used for call in calls} == set(PERMISSIONS)
    assert list(PERMISSIONS) == sorted(PERMISSIONS)
