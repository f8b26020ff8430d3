"""Tags of accounts in AWS: where the tenancy wants them, what is changed there, and what is left alone."""

from collections.abc import AsyncIterator
from uuid import UUID
from zlib import crc32

import pytest
from sqlalchemy import select

from server.accounts.models import AccountRole, Tag
from server.assurance.models import SetupKind, SetupStatus
from server.database import transaction
from server.leases import StageErrorClass
from tests.workers.access import begin
from tests.workers.proxies import Fault, lose_answer, lose_request, refuse
from tests.workers.tags import due, forget, govern, in_aws, on_record, remove_tags, set_tags, switch, tag_in_aws
from tests.workers.world import World, writes

OWN = {"purpose": "test"}


@pytest.fixture
async def propagating(world: World) -> AsyncIterator[World]:
    """The tenancy with its tags in AWS from the start of the test to its end."""
    await switch(world, on=True)
    yield world
    await forget(world)


@pytest.fixture
async def account(world: World, team: UUID, request: pytest.FixtureRequest) -> UUID:
    """An account that was made before the tenancy wanted tags in AWS."""
    account_id, setup_id = await world.request(f"Tags {crc32(request.node.name.encode())}", team)
    await world.complete(setup_id)
    return account_id


async def test_tags_stay_here_where_nobody_has_asked_for_more(world: World, account: UUID) -> None:
    await set_tags(world, account, team="a")
    assert account not in await due(world)
    setup_id = await world.reassure(account)
    async with world.holding(setup_id) as run:
        assert await world.assure(run, "account_tags") == []
    await world.complete(setup_id)
    assert await in_aws(world, account) == {}


async def test_switched_on_they_are_brought_to_aws_and_follow_what_changes(account: UUID, propagating: World) -> None:
    world = propagating
    assert account in await due(world)
    await tag_in_aws(world, account, cost_centre="42")
    assert "organizations:TagResource" in await govern(world, account)
    assert await in_aws(world, account) == {**OWN, "cost_centre": "42"}
    assert account not in await due(world)
    await set_tags(world, account, purpose="other", team="a", empty="")
    assert account in await due(world)
    await govern(world, account)
    assert await in_aws(world, account) == {"purpose": "other", "team": "a", "empty": "", "cost_centre": "42"}
    await remove_tags(world, account, "team", "empty")
    actions = await govern(world, account)
    assert writes(actions) == ["organizations:UntagResource"]
    assert await in_aws(world, account) == {"purpose": "other", "cost_centre": "42"}
    assert await on_record(world, account) == {"purpose"}
    setup_id = await world.reassure(account)
    async with world.holding(setup_id) as run:
        assert writes(await world.assure(run, "account_tags")) == []
    await world.complete(setup_id)


async def test_what_somebody_has_changed_in_aws_is_changed_back(account: UUID, propagating: World) -> None:
    world = propagating
    await govern(world, account)
    await tag_in_aws(world, account, purpose="theirs")
    await world.complete(await world.reassure(account))
    assert await in_aws(world, account) == OWN


async def test_a_tag_of_others_with_the_same_key_is_left_alone_and_somebody_is_asked(
    account: UUID, propagating: World
) -> None:
    world = propagating
    await set_tags(world, account, same="1", other="2", last="3")
    await tag_in_aws(world, account, same="1", other="theirs")
    setup_id = await begin(world, account)
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    stage = (await world.stages(setup_id))["account_tags"]
    assert (stage.error_code, stage.error_class) == ("TAG_IN_USE", StageErrorClass.NEEDS_PERSON)
    assert "'other' ('theirs')" in str(stage.error_message)
    assert await in_aws(world, account) == {**OWN, "same": "1", "other": "theirs", "last": "3"}
    assert await on_record(world, account) == {"purpose", "last"}
    # The account is none the worse for it, and what was asked for helps.
    assert (await world.account(account)).status == "ACTIVE"
    await set_tags(world, account, other="theirs")
    await govern(world, account)


async def test_switched_off_freeholds_own_are_removed_and_no_others(account: UUID, propagating: World) -> None:
    world = propagating
    await set_tags(world, account, same="1", team="a")
    await tag_in_aws(world, account, same="1", cost_centre="42")
    await govern(world, account)
    await switch(world, on=False)
    assert account in await due(world)
    assert writes(await govern(world, account)) == ["organizations:UntagResource"]
    assert await in_aws(world, account) == {"same": "1", "cost_centre": "42"}
    assert await on_record(world, account) == set()
    async with transaction(world.engine) as session:
        kept = set(await session.scalars(select(Tag.key).where(Tag.account_id == account)))
    assert kept == {"purpose", "same", "team"}


async def test_a_new_account_has_them_from_its_first_setup(propagating: World, team: UUID) -> None:
    account_id, setup_id = await propagating.request("Tagged from the start", team)
    await set_tags(propagating, account_id, team="a")
    assert account_id not in await due(propagating)
    await propagating.complete(setup_id)
    assert await in_aws(propagating, account_id) == {**OWN, "team": "a"}
    assert (await propagating.setup_of(account_id)).kind is SetupKind.CREATE


async def test_the_management_account_has_them_too(propagating: World) -> None:
    world = propagating
    management = (await world.account_in_role(AccountRole.MANAGEMENT)).id
    await set_tags(world, management, team="platform")
    await govern(world, management)
    assert await in_aws(world, management) == {"team": "platform"}
    await remove_tags(world, management, "team")
    await govern(world, management)
    assert await in_aws(world, management) == {}


@pytest.mark.parametrize("fault", [lose_answer, lose_request], ids=["answer lost", "request lost"])
async def test_a_call_whose_outcome_is_unknown_is_on_record(account: UUID, propagating: World, fault: Fault) -> None:
    world = propagating
    world.proxy.fail("TagResource", *[fault] * 3)
    setup_id = await begin(world, account)
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    assert await on_record(world, account) == {"purpose"}
    await world.make_due(setup_id)
    await world.complete(setup_id)
    assert await in_aws(world, account) == OWN


async def test_what_aws_refuses_is_not_taken_for_freeholds_own(account: UUID, propagating: World) -> None:
    world = propagating
    world.proxy.fail("TagResource", refuse("ConstraintViolationException", Reason="MAX_TAG_LIMIT_EXCEEDED"))
    setup_id = await begin(world, account)
    assert (await world.run(setup_id)).status is SetupStatus.FAILED
    stage = (await world.stages(setup_id))["account_tags"]
    assert (stage.error_code, stage.error_class) == ("MAX_TAG_LIMIT_EXCEEDED", StageErrorClass.NEEDS_PERSON)
    assert await on_record(world, account) == set()
    await world.retry(account)
    await world.complete(setup_id)
    assert await in_aws(world, account) == OWN
