"""A tenancy from nothing, by a whole worker; and the organizations that a tenancy cannot have."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from server.accounts.models import AccountRole, AccountStatus
from server.assurance.models import LIVE, SetupStatus
from server.config import Settings
from server.database import create_engine
from server.leases import StageErrorClass
from server.migrate import migrate
from server.tenancies.models import TenancyState
from tests.workers.proxies import AwsProxy, answer, refuse
from tests.workers.world import BY_NAME, World, new_tenancy
from workers.assurance.stages import STAGES
from workers.aws.session import Aws
from workers.catalogue import declare_stages
from workers.main import working

OURS = "123456789012"


@pytest.fixture
async def fresh(empty: Settings, proxy: AwsProxy) -> AsyncIterator[World]:
    """A tenancy that has only been requested, in a database of its own."""
    proxy.reset()
    settings = Settings(
        worker_database_url=empty.worker_database_url, redis_url=empty.redis_url, aws_endpoint_url=proxy.url
    )
    await migrate(empty)
    engine = create_engine(settings.require("worker_database_url"))
    await declare_stages(engine, STAGES)
    async with Aws(settings) as aws:
        yield World(settings, engine, aws, proxy, await new_tenancy(engine, "fresh"))
    proxy.reset()
    await engine.dispose()


async def test_a_tenancy_is_made_and_whoever_came_early_is_woken(fresh: World, bootstrapped: World) -> None:
    """The organization is there already, with its units: it is adopted."""
    type_id = await fresh.account_type("Early type")
    early, setup_id = await fresh.request("Early bird", type_id)
    assert (await fresh.run(setup_id)).status is SetupStatus.WAITING
    async with working(fresh.settings):
        for role in (AccountRole.MANAGEMENT, AccountRole.SECURITY, AccountRole.LOGGING):
            account = await fresh.account_in_role(role)
            await fresh.begun(account.id)
            await fresh.until((await fresh.setup_of(account.id)).id, SetupStatus.COMPLETED)
        await fresh.until(setup_id, SetupStatus.COMPLETED)
    tenancy, adopted = await fresh.tenancy(), await bootstrapped.tenancy()
    assert tenancy.state is TenancyState.ACTIVE
    assert (tenancy.aws_organization_id, tenancy.aws_root_id) == (adopted.aws_organization_id, adopted.aws_root_id)
    assert tenancy.workloads_ou_id == adopted.workloads_ou_id
    management = await fresh.account_in_role(AccountRole.MANAGEMENT)
    assert (management.aws_account_id, management.status) == (OURS, AccountStatus.ACTIVE)
    security = await fresh.account_in_role(AccountRole.SECURITY)
    assert (await fresh.type_of(security.id)).organizational_unit_id == tenancy.foundation_ou_id
    assert (await fresh.account(early)).status is AccountStatus.ACTIVE


async def test_the_bootstrap_can_be_repeated(fresh: World, bootstrapped: World) -> None:
    management = await fresh.account_in_role(AccountRole.MANAGEMENT)
    await fresh.complete((await fresh.setup_of(management.id)).id)
    before = fresh.proxy.calls.copy()
    await fresh.complete(await fresh.reassure(management.id))
    assert {call for call, count in (fresh.proxy.calls - before).items() if count} <= {
        "DescribeOrganization",
        "ListRoots",
        "ListOrganizationalUnitsForParent",
    }


async def test_units_are_known_by_their_ids(fresh: World, bootstrapped: World) -> None:
    """AWS holds "workloads" and "Workloads" to be the same name, and somebody may rename a unit at any time."""
    management = await fresh.account_in_role(AccountRole.MANAGEMENT)
    workloads = (await bootstrapped.tenancy()).workloads_ou_id
    assert workloads is not None
    async with fresh.aws.client("organizations", "us-east-1") as organizations:
        await organizations.update_organizational_unit(OrganizationalUnitId=workloads, Name="workloads")
        fresh.proxy.fail("CreateOrganizationalUnit", *[refuse("DuplicateOrganizationalUnitException")] * 3)
        await fresh.complete((await fresh.setup_of(management.id)).id)
        assert (await fresh.tenancy()).workloads_ou_id == workloads
        await organizations.update_organizational_unit(OrganizationalUnitId=workloads, Name="Renamed")
        await fresh.complete(await fresh.reassure(management.id))
        assert (await fresh.tenancy()).workloads_ou_id == workloads
        assert fresh.proxy.calls["CreateOrganizationalUnit"] == 3
        await organizations.update_organizational_unit(OrganizationalUnitId=workloads, Name="Workloads")


async def test_the_account_is_written_before_the_tenancy(fresh: World, bootstrapped: World) -> None:
    """The order in which everybody locks: setup, account, tenancy."""
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    management = await fresh.account_in_role(AccountRole.MANAGEMENT)
    async with fresh.holding((await fresh.setup_of(management.id)).id) as run:
        event.listen(fresh.engine.sync_engine, "before_cursor_execute", note)
        await BY_NAME["organization"].apply(run)
        event.remove(fresh.engine.sync_engine, "before_cursor_execute", note)
    written = [statement.split()[1] for statement in statements if statement.startswith("UPDATE")]
    assert written == ["account", "tenancy"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"FeatureSet": "CONSOLIDATED_BILLING"}, "ORGANIZATION_NOT_IN_ALL_FEATURES_MODE"),
        ({"MasterAccountId": "999999999999"}, "NOT_MANAGEMENT_ACCOUNT"),
    ],
)
async def test_an_organization_that_cannot_be_governed_is_refused(
    fresh: World, changes: dict[str, str], code: str
) -> None:
    organization = {
        "Id": "o-somewhere00",
        "FeatureSet": "ALL",
        "MasterAccountId": OURS,
        "MasterAccountEmail": "management@example.com",
        **changes,
    }
    fresh.proxy.fail("DescribeOrganization", *[answer({"Organization": organization})] * 2)
    assert await refusal(fresh, (await fresh.account_in_role(AccountRole.MANAGEMENT)).id) == code


async def test_an_organization_belongs_to_one_tenancy(fresh: World, bootstrapped: World, engine: AsyncEngine) -> None:
    other = World(bootstrapped.settings, engine, fresh.aws, fresh.proxy, await new_tenancy(engine, "second"))
    assert await refusal(other, (await other.account_in_role(AccountRole.MANAGEMENT)).id) == "ORGANIZATION_IN_USE"


async def test_credentials_of_another_organization_are_noticed(fresh: World, bootstrapped: World) -> None:
    await fresh.change_tenancy(aws_organization_id="o-lost000000")
    assert await refusal(fresh, (await fresh.account_in_role(AccountRole.MANAGEMENT)).id) == "ORGANIZATION_CHANGED"


async def test_the_e_mail_of_the_management_account_is_its_own(fresh: World, bootstrapped: World) -> None:
    security = await fresh.account_in_role(AccountRole.SECURITY)
    async with fresh.aws.client("organizations", "us-east-1") as organizations:
        email = (await organizations.describe_organization())["Organization"]["MasterAccountEmail"]
    await fresh.change(security.id, email=email)
    assert await refusal(fresh, (await fresh.account_in_role(AccountRole.MANAGEMENT)).id) == "MANAGEMENT_EMAIL_IN_USE"


async def refusal(world: World, account_id: UUID) -> str | None:
    """The code with which the first stage asks for somebody."""
    setup = await world.run((await world.setup_of(account_id)).id)
    stage = (await world.stages(setup.id))["organization"]
    assert setup.status not in LIVE
    assert stage.error_class is StageErrorClass.NEEDS_PERSON
    return stage.error_code
