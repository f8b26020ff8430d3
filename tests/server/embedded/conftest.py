from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.embedded import Services, embedded
from tests.server.embedded.aws import Aws


@pytest.fixture(scope="session")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    async with embedded(tmp_path_factory.mktemp("simulator"), services={"simulator"}, fsync=False) as services:
        yield services


@pytest.fixture(scope="session")
async def aws(simulator: Services) -> Aws:
    """The management account of an organization that the tests of the simulator share."""
    management = Aws(simulator.aws_endpoint)
    async with management.client("organizations") as organizations:
        await organizations.create_organization(FeatureSet="ALL")
    return management


@pytest.fixture(scope="session")
async def member(aws: Aws) -> Aws:
    return await aws.assume(await aws.create_account("Member", "member@example.com"))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"
