"""The IAM roles of groups: made, kept as they are and removed, by the stage alone and by whole setups."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from uuid import UUID

import botocore.session
import pytest
from aiohttp import web
from sqlalchemy import func, update

from server.access.grants import Grant, Revocation
from server.access.models import AccessRole
from server.accounts.models import Account, AccountRole, AccountStatus
from server.assurance.governance import due_accounts, govern
from server.assurance.models import SetupKind, SetupStatus, StageStatus
from server.assurance.requests import update_account
from server.assurance.service import fail_stage
from server.database import transaction
from server.leases import StageError, StageErrorClass
from server.tenancies.service import partition
from tests.server.waiting import until
from tests.workers.access import (
    ANYBODY,
    ANYTHING,
    READ_ONLY,
    begin,
    change,
    group,
    move_below,
    roles,
    rows,
    states,
    tamper,
)
from tests.workers.proxies import Fault, Held, refuse
from tests.workers.world import World, writes
from workers.assurance.roles import PATH
from workers.assurance.runner import Runner
from workers.assurance.stages import STAGES
from workers.governance import begin_due_setups
from workers.main import working

ADMIN, DEVELOPER, READONLY = AccessRole


@pytest.fixture(scope="session")
async def kind(bootstrapped: World) -> UUID:
    return await bootstrapped.account_type("Reached")


@pytest.fixture(scope="session")
async def reached(bootstrapped: World, kind: UUID) -> UUID:
    """The id of an account that tests of access leave without any."""
    account_id, setup_id = await bootstrapped.request("Reached", kind)
    await bootstrapped.complete(setup_id)
    return account_id


async def settle(world: World, account_id: UUID) -> None:
    await world.complete(await begin(world, account_id))


async def test_a_grant_becomes_a_role_that_the_management_account_may_take_for_the_group(
    world: World, kind: UUID, reached: UUID
) -> None:
    made = await group(world, "Platform & Co: a name that is too long for a role".replace("&", "+"))
    await change(world, kind, Grant(made.id, ADMIN), Grant(made.id, DEVELOPER), Grant(made.id, READONLY))
    assert await states(world, reached) == dict.fromkeys(AccessRole, ("GRANTED", "PENDING"))
    setup_id = await begin(world, reached)
    assert [*await world.stages(setup_id)] == ["withdrawn_access", "access", "account_tags"]
    await world.complete(setup_id)
    management = (await world.account_in_role(AccountRole.MANAGEMENT)).aws_account_id
    found = await roles(world, reached)
    assert {name: role["policies"] for name, role in found.items()} == {
        f"freehold-admin-{made.slug}": ["arn:aws:iam::aws:policy/AdministratorAccess"],
        f"freehold-developer-{made.slug}": ["arn:aws:iam::aws:policy/job-function/SystemAdministrator"],
        f"freehold-readonly-{made.slug}": [READ_ONLY],
    }
    role = found[f"freehold-developer-{made.slug}"]
    assert len(role["RoleName"]) <= 64
    assert (role["Path"], role["MaxSessionDuration"]) == ("/freehold/", 3600)
    assert {tag["Key"]: tag["Value"] for tag in role["Tags"]} == {
        "freehold:group": f"grp_{made.id.hex}",
        "freehold:role": "DEVELOPER",
    }
    [statement] = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{management}:root"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": f"grp_{made.id.hex}"}},
    }
    assert await states(world, reached) == dict.fromkeys(AccessRole, ("GRANTED", "ACTIVE"))
    account = await world.account(reached)
    assert (account.status, account.governance_due_at) == (AccountStatus.ACTIVE, None)
    await change(world, kind, revoke=(Revocation(made.id, ADMIN),))
    assert (await states(world, reached))["ADMIN"] == ("REVOKED", "REMOVING")
    await settle(world, reached)
    assert sorted(await states(world, reached)) == ["DEVELOPER", "READONLY"]
    await change(world, kind, revoke=(Revocation(made.id),))
    await settle(world, reached)
    assert await roles(world, reached) == {}
    assert await states(world, reached) == {}


async def test_what_somebody_changed_is_changed_back_and_what_nobody_is_granted_goes(
    world: World, kind: UUID, reached: UUID
) -> None:
    made = await group(world, "Tampered with")
    await change(world, kind, Grant(made.id, READONLY))
    setup_id = await begin(world, reached)
    async with world.holding(setup_id) as run:
        await world.assure(run, "access")
        before = await roles(world, reached)
        assert writes(await world.assure(run, "access")) == []
        await tamper(run, f"freehold-readonly-{made.slug}")
        await world.assure(run, "access")
    after = await roles(world, reached)
    [role] = after.values()
    assert role["policies"] == [READ_ONLY]
    assert {**role, "Tags": sorted(map(str, role["Tags"]))} == {
        **next(iter(before.values())),
        "Tags": sorted(map(str, next(iter(before.values()))["Tags"])),
    }
    async with world.holding(setup_id) as run:
        await move_below(run, role["RoleName"])
        await world.assure(run, "access")
    assert [role["Path"] for role in (await roles(world, reached)).values()] == [PATH]
    await change(world, kind, revoke=(Revocation(made.id),))
    await world.complete(setup_id)
    assert await roles(world, reached) == {}
    await settle(world, reached)


async def test_a_policy_that_an_account_lacks_fails_that_role_alone(world: World, kind: UUID, reached: UUID) -> None:
    made = await group(world, "With a policy of its own")
    own = Grant(made.id, DEVELOPER, "arn:aws:iam::{account}:policy/team/Own")
    await change(world, kind, own, Grant(made.id, READONLY))
    setup_id = await begin(world, reached)
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    found = await rows(world, reached)
    number = (await world.account(reached)).aws_account_id
    assert found[made.id, "READONLY"].state == "ACTIVE"
    assert found[made.id, "DEVELOPER"].state == "FAILED"
    assert f"arn:aws:iam::{number}:policy/team/Own" in str(found[made.id, "DEVELOPER"].error)
    stage = (await world.stages(setup_id))["access"]
    assert (stage.error_class, stage.error_code) == (StageErrorClass.NEEDS_PERSON, "NoSuchEntity")
    assert (await world.account(reached)).status is AccountStatus.ACTIVE
    await world.retry(reached)
    async with world.holding(setup_id) as run, run.member("iam") as iam:
        answer = await iam.create_policy(PolicyName="Own", Path="/team/", PolicyDocument=json.dumps(ANYTHING))
    await world.complete(setup_id)
    assert (await roles(world, reached))[f"freehold-developer-{made.slug}"]["policies"] == [answer["Policy"].get("Arn")]
    assert await states(world, reached) == dict.fromkeys(("DEVELOPER", "READONLY"), ("GRANTED", "ACTIVE"))
    await change(world, kind, revoke=(Revocation(made.id),))
    await settle(world, reached)


async def test_a_role_that_iam_does_not_show_yet_is_tried_again(world: World, kind: UUID, reached: UUID) -> None:
    made = await group(world, "Not seen yet")
    await change(world, kind, Grant(made.id, READONLY))
    setup_id = await begin(world, reached)
    world.proxy.fail("AttachRolePolicy", refuse("NoSuchEntity", 404))
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    assert (await world.stages(setup_id))["access"].error_code == "NoSuchEntity"
    assert await states(world, reached) == {"READONLY": ("GRANTED", "PENDING")}
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert await states(world, reached) == {"READONLY": ("GRANTED", "ACTIVE")}
    await change(world, kind, revoke=(Revocation(made.id),))
    await settle(world, reached)


def unlisted(name: str) -> Fault:
    """IAM does not list a role yet that it has."""

    async def fault(_: web.Request, forward: Callable[[], Awaitable[web.Response]]) -> web.Response:
        answer = await forward()
        member = rf"<member>(?:(?!</member>).)*<RoleName>{name}</RoleName>.*?</member>"
        text = re.sub(member, "", (answer.text or ""), flags=re.DOTALL)
        return web.Response(status=answer.status, content_type="text/xml", text=text)

    return fault


async def test_a_role_that_iam_has_and_does_not_list_is_taken_up(world: World, kind: UUID, reached: UUID) -> None:
    made = await group(world, "Listed late")
    await change(world, kind, Grant(made.id, READONLY))
    setup_id = await begin(world, reached)
    name = f"freehold-readonly-{made.slug}"
    world.proxy.fail("ListRoles", *[unlisted(name)] * 4)
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    await world.make_due(setup_id)
    # Once more IAM shows it only afterwards, and this time not what hangs on it either.
    world.proxy.fail("ListAttachedRolePolicies", refuse("NoSuchEntity", 404))
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert world.proxy.calls["DeleteRole"] == 0
    assert [role["policies"] for role in (await roles(world, reached)).values()] == [[READ_ONLY]]
    await change(world, kind, revoke=(Revocation(made.id),))
    await settle(world, reached)


async def test_what_aws_refuses_of_one_role_keeps_no_other_back(world: World, kind: UUID, reached: UUID) -> None:
    """A name that is taken under another path, a policy that cannot be attached, a role that cannot be deleted."""
    taken, unfit, other = [await group(world, f"Refused {name}") for name in ("taken", "unfit", "other")]
    service_policy = "arn:aws:iam::aws:policy/aws-service-role/AutoScalingServiceRolePolicy"
    grants = Grant(taken.id, ADMIN), Grant(unfit.id, READONLY, service_policy), Grant(other.id, READONLY)
    await change(world, kind, *grants)
    setup_id = await begin(world, reached)
    name = f"freehold-admin-{taken.slug}"
    async with world.holding(setup_id) as run, run.member("iam") as iam:
        await iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(ANYBODY))
        await iam.create_role(RoleName="kept", Path=PATH, AssumeRolePolicyDocument=json.dumps(ANYBODY))

    async def only_unfit(request: web.Request, forward: Callable[[], Awaitable[web.Response]]) -> web.StreamResponse:
        text = (await request.read()).decode()
        return await (refuse("PolicyNotAttachable", 400)(request, forward) if "AutoScaling" in text else forward())

    world.proxy.fail("AttachRolePolicy", only_unfit, only_unfit)
    world.proxy.fail("DeleteRole", refuse("DeleteConflict", 409))
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    found = await rows(world, reached)
    assert {key: row.state.value for key, row in found.items()} == {
        (taken.id, "ADMIN"): "FAILED",
        (unfit.id, "READONLY"): "FAILED",
        (other.id, "READONLY"): "ACTIVE",
    }
    assert "Delete it there, and retry" in str(found[taken.id, "ADMIN"].error)
    assert "PolicyNotAttachable" in str(found[unfit.id, "READONLY"].error)
    stage = (await world.stages(setup_id))["access"]
    assert stage.error_class is StageErrorClass.NEEDS_PERSON
    assert all(text in str(stage.error_message) for text in ("kept", name, f"freehold-readonly-{unfit.slug}"))
    await change(world, kind, revoke=tuple(Revocation(each.id) for each in (taken, unfit, other)))
    await settle(world, reached)
    assert await states(world, reached) == {}
    assert await roles(world, reached) == {}


async def test_a_setup_tells_of_some_roles_that_are_refused_and_each_row_of_its_own(
    world: World, kind: UUID, reached: UUID
) -> None:
    made = [await group(world, f"Refused {number}") for number in range(5)]
    own = "arn:aws:iam::{account}:policy/" + "p" * 100 + "/Lacking"
    await change(world, kind, *(Grant(each.id, READONLY, own) for each in made))
    setup_id = await begin(world, reached)
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    message = str((await world.stages(setup_id))["access"].error_message)
    assert message.count("Create it there") == 3
    assert "2 roles more" in message
    assert all("Create it there" in str(row.error) for row in (await rows(world, reached)).values())
    await change(world, kind, Grant(made[0].id, READONLY, "arn:aws:iam::aws:policy/Nope"))
    setup_id = await begin(world, reached)
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    assert "AWS has no managed policy arn:aws:iam::aws:policy/Nope" in str(
        (await rows(world, reached))[made[0].id, "READONLY"].error
    )
    await change(world, kind, revoke=tuple(Revocation(each.id) for each in made))
    await settle(world, reached)


async def test_a_worker_that_dies_between_a_role_and_its_policy_is_followed_by_one_that_ends_it(
    world: World, kind: UUID, reached: UUID
) -> None:
    made = await group(world, "Half made")
    await change(world, kind, Grant(made.id, READONLY))
    setup_id = await begin(world, reached)
    held = Held()
    world.proxy.fail("AttachRolePolicy", held)
    dying = asyncio.create_task(Runner(world.engine, world.aws, STAGES).run(await world.claim(setup_id)))
    async with asyncio.timeout(20):
        await held.reached.wait()
    dying.cancel()
    held.release()
    await asyncio.gather(dying, return_exceptions=True)
    assert (await states(world, reached))["READONLY"] == ("GRANTED", "PENDING")
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert world.proxy.calls["CreateRole"] == 1
    assert [role["policies"] for role in (await roles(world, reached)).values()] == [[READ_ONLY]]
    assert (await states(world, reached))["READONLY"] == ("GRANTED", "ACTIVE")
    await change(world, kind, revoke=(Revocation(made.id),))
    await settle(world, reached)


async def test_who_joins_a_type_gets_what_it_grants_and_who_leaves_it_loses_that(
    world: World, kind: UUID, reached: UUID
) -> None:
    """The role that both types grant stays in place; the one for accounts of then alone is for nobody who joins."""
    made = await group(world, "On the move")
    other = await world.account_type("Joined")
    await change(world, kind, Grant(made.id, ADMIN), Grant(made.id, READONLY))
    await settle(world, reached)
    await change(
        world,
        other,
        Grant(made.id, READONLY),
        Grant(made.id, DEVELOPER),
        Grant(made.id, ADMIN, apply_to_new_accounts=False),
    )

    async def move(type_id: UUID) -> UUID:
        async with transaction(world.engine) as session:
            await update_account(session, world.tenancy_id, reached, account_type_id=type_id)
        return (await world.setup_of(reached)).id

    setup_id = await move(other)
    assert await states(world, reached) == {
        "ADMIN": ("LEFT", "REMOVING"),
        "DEVELOPER": ("JOINED", "PENDING"),
        "READONLY": ("JOINED", "ACTIVE"),
    }
    await world.complete(setup_id)
    assert sorted(await roles(world, reached)) == [f"freehold-{role}-{made.slug}" for role in ("developer", "readonly")]
    # Granted anew, it is for those who have joined since.
    await change(world, other, Grant(made.id, ADMIN, apply_to_new_accounts=False))
    await settle(world, reached)
    assert (await states(world, reached))["ADMIN"] == ("GRANTED", "ACTIVE")
    await world.complete(await move(kind))
    assert sorted(await roles(world, reached)) == [f"freehold-{role}-{made.slug}" for role in ("admin", "readonly")]
    await change(world, kind, revoke=(Revocation(made.id),))
    await settle(world, reached)


async def test_a_new_account_is_reached_when_its_setup_is_complete(world: World) -> None:
    type_id = await world.account_type("Granted before")
    made, later = await group(world, "Before the account"), await group(world, "Not for later accounts")
    await change(world, type_id, Grant(made.id, READONLY), Grant(later.id, ADMIN, apply_to_new_accounts=False))
    account_id, setup_id = await world.request("Granted before", type_id)
    assert await states(world, account_id) == {"READONLY": ("JOINED", "PENDING")}
    assert [*await world.stages(setup_id)][-2:] == ["access", "account_tags"]
    await change(world, type_id, revoke=(Revocation(made.id),))
    assert await states(world, account_id) == {}
    await change(world, type_id, Grant(made.id, READONLY))
    await world.complete(setup_id)
    assert await states(world, account_id) == {"READONLY": ("GRANTED", "ACTIVE")}
    assert [*await roles(world, account_id)] == [f"freehold-readonly-{made.slug}"]
    assert (await world.account(account_id)).governance_due_at is None


async def test_what_a_failed_setup_left_undone_follows_governance(world: World, kind: UUID, reached: UUID) -> None:
    failing = await world.reassure(reached)
    lease = await world.claim(failing)
    position = (await world.stages(failing))["ebs_encryption"].position
    async with lease.write() as (session, setup):
        await fail_stage(session, setup, position, StageError("Denied", "No.", StageErrorClass.PERMANENT))
    made = await group(world, "After a failure")
    await change(world, kind, Grant(made.id, READONLY))
    setup_id = await begin(world, reached)
    stages = await world.stages(setup_id)
    # Who lost access loses it before what had failed is tried again; who gets some gets it after that.
    assert [*stages][:2] == ["create_account", "withdrawn_access"]
    assert [*stages][-2:] == ["access", "account_tags"]
    assert {"ebs_encryption", "instance_metadata", "account_details"} < {*stages}
    assert {stage.status for stage in stages.values()} == {StageStatus.PENDING}
    await world.complete(setup_id)
    await change(world, kind, revoke=(Revocation(made.id),))
    setup_id = await begin(world, reached)
    assert [*await world.stages(setup_id)] == ["withdrawn_access", "access", "account_tags"]
    await world.complete(setup_id)


async def test_one_setup_begins_for_an_account_that_is_due_and_none_beside_a_live_one(
    world: World, kind: UUID, reached: UUID
) -> None:
    async def due() -> bool:
        async with transaction(world.engine) as session:
            return (world.tenancy_id, reached) in await due_accounts(session, 1000)

    async def now_due(status: AccountStatus = AccountStatus.ACTIVE) -> None:
        mark = update(Account).where(Account.id == reached)
        async with transaction(world.engine) as session:
            await session.execute(mark.values(governance_due_at=func.now(), status=status))

    live = await world.reassure(reached)
    await now_due()
    assert not await due()
    async with transaction(world.engine) as session:
        assert not await govern(session, world.tenancy_id, reached)
    await world.complete(live)
    await now_due(AccountStatus.CLOSING)
    assert not await due()
    await now_due()
    assert await due()
    # Workers that look at once.
    await asyncio.gather(*(begin_due_setups(world.engine) for _ in range(3)))
    assert not await due()
    setup = await world.setup_of(reached)
    assert (setup.kind, setup.status) == (SetupKind.GOVERN, SetupStatus.PENDING)
    assert (await world.account(reached)).governance_due_at is None
    await world.complete(setup.id)


async def test_a_change_of_access_reaches_aws_by_itself(world: World, kind: UUID, reached: UUID) -> None:
    made = await group(world, "By itself")

    async def granted() -> bool:
        return await states(world, reached) == {"READONLY": ("GRANTED", "ACTIVE")}

    async def revoked() -> bool:
        return await states(world, reached) == {}

    async with working(world.settings):
        await change(world, kind, Grant(made.id, READONLY))
        await until(granted, within=20)
        await change(world, kind, revoke=(Revocation(made.id),))
        await until(revoked, within=20)
        await world.until((await world.setup_of(reached)).id, SetupStatus.COMPLETED)


def test_the_partition_of_every_region_is_known() -> None:
    """Freehold's table of how their names begin, beside botocore's own."""
    session = botocore.session.Session()
    partitions = session.get_available_partitions()
    regions = {region: name for name in partitions for region in session.get_available_regions("ec2", name)}
    assert len(set(regions.values())) >= 5
    assert {region: partition(region) for region in regions} == regions
