"""Tags of accounts as tests change them and look at them in AWS."""

from uuid import UUID

from sqlalchemy import delete, select, update

from server.accounts.governance import switch_propagation
from server.accounts.models import Account, PropagatedTag
from server.accounts.tags import TagValue
from server.assurance.governance import due_accounts
from server.assurance.requests import remove_account_tags, set_account_tags
from server.database import transaction
from tests.workers.access import begin
from tests.workers.world import World


async def switch(world: World, *, on: bool) -> None:
    async with transaction(world.engine) as session:
        assert await switch_propagation(session, world.tenancy_id, on=on)


async def forget(world: World) -> None:
    """The tenancy wants no tags in AWS, and Freehold has set none there that it knows of."""
    async with transaction(world.engine) as session:
        await session.execute(delete(PropagatedTag).where(PropagatedTag.tenancy_id == world.tenancy_id))
        await session.execute(update(Account).values(governance_due_at=None, updated_at=Account.updated_at))
    await world.change_tenancy(propagate_tags=False)


async def in_aws(world: World, account_id: UUID) -> dict[str, str]:
    number = (await world.account(account_id)).aws_account_id
    assert number is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        tags = (await organizations.list_tags_for_resource(ResourceId=number))["Tags"]
    return {tag["Key"]: tag["Value"] for tag in tags}


async def tag_in_aws(world: World, account_id: UUID, **tags: str) -> None:
    """As somebody else does."""
    number = (await world.account(account_id)).aws_account_id
    assert number is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.tag_resource(
            ResourceId=number, Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
        )


async def set_tags(world: World, account_id: UUID, **tags: str) -> None:
    async with transaction(world.engine) as session:
        values = [TagValue(key, value) for key, value in tags.items()]
        await set_account_tags(session, world.tenancy_id, account_id, values)


async def remove_tags(world: World, account_id: UUID, *keys: str) -> None:
    async with transaction(world.engine) as session:
        await remove_account_tags(session, world.tenancy_id, account_id, keys)


async def on_record(world: World, account_id: UUID) -> set[str]:
    async with transaction(world.engine) as session:
        return set(await session.scalars(select(PropagatedTag.key).where(PropagatedTag.account_id == account_id)))


async def govern(world: World, account_id: UUID) -> list[str]:
    """Run the GOVERN setup that is due; the IAM actions of its stage."""
    setup_id = await begin(world, account_id)
    async with world.holding(setup_id) as run:
        actions = await world.assure(run, "account_tags")
    await world.complete(setup_id)
    return actions


async def due(world: World) -> set[UUID]:
    async with transaction(world.engine) as session:
        return {account_id for _, account_id in await due_accounts(session, 100)}


async def use_every_call(world: World, account_id: UUID) -> None:
    """Over everything that the stage does."""
    await switch(world, on=True)
    await set_tags(world, account_id, every="call")
    await govern(world, account_id)
    await remove_tags(world, account_id, "every")
    await govern(world, account_id)
    await switch(world, on=False)
    await govern(world, account_id)
    await forget(world)
