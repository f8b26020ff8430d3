from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.models import Account, AccountRole
from server.config import Settings
from server.database import create_engine, transaction
from server.embedded import Services, embedded
from server.migrate import migrate
from server.policies.requests import Target
from tests.conftest import new_database
from tests.workers.proxies import AwsProxy
from tests.workers.rollouts import Policies
from tests.workers.world import World, new_tenancy
from workers.assurance.stages import STAGES
from workers.aws.session import Aws
from workers.catalogue import declare_stages


@pytest.fixture(scope="session")
async def proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AwsProxy]:
    """In front of a simulator that only the tests of the workers use."""
    directory = tmp_path_factory.mktemp("simulator")
    async with (
        embedded(directory, services={"simulator"}, fsync=False) as simulator,
        AwsProxy(simulator.aws_endpoint).serve() as proxy,
    ):
        yield proxy


@pytest.fixture(scope="session")
async def settings(services: Services, proxy: AwsProxy) -> Settings:
    settings = replace(await new_database(services), aws_endpoint_url=proxy.url)
    await migrate(settings)
    return settings


@pytest.fixture(scope="session")
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(settings.require("worker_database_url"), pool_size=20)
    await declare_stages(engine, STAGES)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
async def bootstrapped(settings: Settings, engine: AsyncEngine, proxy: AwsProxy) -> AsyncIterator[World]:
    """A tenancy whose organization, foundation accounts and managed policies were made, from nothing, step by step."""
    async with Aws(settings) as aws:
        world = World(settings, engine, aws, proxy, await new_tenancy(engine, "workers"))
        for role in (AccountRole.MANAGEMENT, AccountRole.SECURITY, AccountRole.LOGGING):
            async with transaction(engine) as session:
                account = (await session.scalars(select(Account).where(Account.role == role))).one()
            setup = await world.setup_of(account.id)
            await world.walk(setup.id)
            await world.complete(setup.id)
        policies = Policies(world)
        for policy_id in await policies.due():
            await policies.roll_out(policy_id)
        yield world


@pytest.fixture
async def world(bootstrapped: World) -> World:
    """With nothing that another test left behind."""
    bootstrapped.proxy.reset()
    await bootstrapped.end_setups()
    return bootstrapped


@pytest.fixture(scope="session")
async def team(bootstrapped: World) -> UUID:
    """The id of an account type for the accounts of the tests."""
    return await bootstrapped.account_type("Team")


@pytest.fixture(scope="session")
async def hardened(bootstrapped: World, team: UUID) -> UUID:
    """The id of an account that has been through every stage; tests leave it as hardened as they found it."""
    await bootstrapped.end_setups()
    account_id, setup_id = await bootstrapped.request("Hardened", team, alias="hardened-by-tests")
    await bootstrapped.walk(setup_id)
    await bootstrapped.complete(setup_id)
    return account_id


@pytest.fixture
def policies(world: World) -> Policies:
    return Policies(world)


@pytest.fixture
async def target(world: World, team: UUID) -> Target:
    """An account type that has its unit."""
    await world.keep_unit(team)
    return Target(account_type_id=team)
