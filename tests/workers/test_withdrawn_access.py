"""Access that is taken away goes first, whatever a setup fails at or waits for; access that is given comes last."""

from uuid import UUID, uuid4

import pytest

from server.access.grants import Grant, Revocation
from server.access.models import AccessRole, Group
from server.accounts.models import AccountStatus
from server.assurance.governance import due_accounts, govern
from server.assurance.models import SetupKind, SetupStatus, StageStatus
from server.assurance.requests import update_account
from server.database import transaction
from tests.workers.access import READ_ONLY, begin, change, group, roles, states
from tests.workers.proxies import refuse
from tests.workers.world import World

ADMIN, DEVELOPER, READONLY = AccessRole
LACKING = "arn:aws:iam::{account}:policy/Lacking"


@pytest.fixture
async def made(world: World) -> Group:
    return await group(world, f"Withdrawn {uuid4().hex[:6]}")


async def admitted(world: World, made: Group, name: str) -> tuple[UUID, UUID]:
    """A type and an account of it that the group can administer."""
    # Tests share a tenancy, and names are its own.
    name = f"{name} {uuid4().hex[:6]}"
    type_id = await world.account_type(name)
    account_id, setup_id = await world.request(name, type_id)
    await world.complete(setup_id)
    await change(world, type_id, Grant(made.id, ADMIN))
    await world.complete(await begin(world, account_id))
    assert [*await roles(world, account_id)] == [f"freehold-admin-{made.slug}"]
    return type_id, account_id


async def is_due(world: World, account_id: UUID) -> bool:
    async with transaction(world.engine) as session:
        return (world.tenancy_id, account_id) in await due_accounts(session, 1000)


async def move(world: World, account_id: UUID, type_id: UUID) -> UUID:
    async with transaction(world.engine) as session:
        await update_account(session, world.tenancy_id, account_id, account_type_id=type_id)
    return (await world.setup_of(account_id)).id


@pytest.mark.parametrize("call", ["MoveAccount", "GetAccountPasswordPolicy"])
async def test_a_move_that_fails_has_taken_the_access_of_the_old_type(world: World, made: Group, call: str) -> None:
    _, account_id = await admitted(world, made, f"Left {call}")
    newcomers = await group(world, f"Newcomers {call}")
    other = await world.account_type(f"Joined {call}")
    await change(world, other, Grant(newcomers.id, ADMIN))
    setup_id = await move(world, account_id, other)
    world.proxy.fail(call, refuse("AccessDeniedException", 400))
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    assert await roles(world, account_id) == {}
    # Nor does governance let anybody in before the account is where it belongs.
    await change(world, other, Grant(newcomers.id, READONLY))
    world.proxy.fail(call, refuse("AccessDeniedException", 400))
    governing = await begin(world, account_id)
    assert (await world.run(governing)).status is SetupStatus.FAILED
    assert await roles(world, account_id) == {}
    await world.retry(account_id)
    await world.complete(governing)
    assert sorted(await roles(world, account_id)) == [f"freehold-{r}-{newcomers.slug}" for r in ("admin", "readonly")]


async def test_a_role_that_may_do_less_loses_the_rest_before_a_move_that_fails(world: World, made: Group) -> None:
    _, account_id = await admitted(world, made, "Narrowed")
    other = await world.account_type(f"Narrower {made.slug}")
    await change(world, other, Grant(made.id, ADMIN, READ_ONLY))
    setup_id = await move(world, account_id, other)
    world.proxy.fail("MoveAccount", refuse("AccessDeniedException", 400))
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    [role] = (await roles(world, account_id)).values()
    assert role["policies"] == []
    await world.retry(account_id)
    await world.complete(setup_id)
    [role] = (await roles(world, account_id)).values()
    assert role["policies"] == [READ_ONLY]


async def test_a_rename_that_fails_does_not_lose_a_revocation(world: World, made: Group) -> None:
    type_id, account_id = await admitted(world, made, "Renamed")
    await change(world, type_id, revoke=(Revocation(made.id),))
    async with transaction(world.engine) as session:
        await update_account(session, world.tenancy_id, account_id, name=f"Renamed, revoked {uuid4().hex[:6]}")
    world.proxy.fail("GetAccountPasswordPolicy", refuse("AccessDenied", 403))
    assert (await world.run((await world.setup_of(account_id)).id)).status is SetupStatus.FAILED
    assert await roles(world, account_id) == {}
    assert await states(world, account_id) == {}


async def test_an_account_that_never_was_active_loses_access_and_may_become_active(world: World, made: Group) -> None:
    lacking = await group(world, "With a policy that the account lacks")
    name = f"Never active {uuid4().hex[:6]}"
    type_id = await world.account_type(name)
    await change(world, type_id, Grant(made.id, ADMIN), Grant(lacking.id, DEVELOPER, LACKING))
    account_id, setup_id = await world.request(name, type_id)
    while (await world.run(setup_id)).status is SetupStatus.WAITING:
        await world.make_due(setup_id)
    assert (await world.account(account_id)).status is AccountStatus.ERROR
    assert [*await roles(world, account_id)]
    # What is granted waits for the setup that failed.
    await change(world, type_id, Grant(made.id, READONLY))
    assert not await is_due(world, account_id)
    await change(world, type_id, revoke=(Revocation(made.id), Revocation(lacking.id)))
    assert await is_due(world, account_id)
    governing = await begin(world, account_id)
    await world.complete(governing)
    assert await roles(world, account_id) == {}
    # It held what the setup before it left undone, so nothing is missing now.
    assert (await world.setup_of(account_id)).kind is SetupKind.GOVERN
    assert (await world.account(account_id)).status is AccountStatus.ACTIVE


async def test_a_setup_that_waits_takes_access_away_first(world: World, made: Group) -> None:
    type_id, account_id = await admitted(world, made, "Waiting")
    setup_id = await world.reassure(account_id)
    busy = refuse("EntityTemporarilyUnmodifiable", 409)
    world.proxy.fail("GetAccountPasswordPolicy", busy, busy)
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    assert not await is_due(world, account_id)
    await change(world, type_id, revoke=(Revocation(made.id),))
    assert await is_due(world, account_id)
    async with transaction(world.engine) as session:
        assert await govern(session, world.tenancy_id, account_id)
    assert not await is_due(world, account_id)
    assert (await world.stages(setup_id))["withdrawn_access"].status is StageStatus.PENDING
    stage = (await world.events(account_id))[-1].stage
    assert stage is not None
    assert (stage["name"], stage["status"]) == ("withdrawn_access", "PENDING")
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    assert await roles(world, account_id) == {}
    await world.make_due(setup_id)
    await world.complete(setup_id)
    # That the type grants nothing any more has yet to be compared once.
    await world.complete(await begin(world, account_id))
    assert not await is_due(world, account_id)
