"""Organizational units: found or made, whichever it takes."""

from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.account_types.models import AccountType
from server.account_types.service import FOUNDATION
from server.database import transaction
from server.policies.service import wake_attached
from server.tenancies.models import Tenancy
from workers.assurance.run import Run
from workers.aws.session import Aws
from workers.aws.turns import organization_turn

PERMISSIONS = ("organizations:CreateOrganizationalUnit", "organizations:ListOrganizationalUnitsForParent")

# The units that every tenancy has below the root -> the tenancy's column that holds the id.
TENANCY_UNITS = {"Foundation": "foundation_ou_id", "Workloads": "workloads_ou_id", "Suspended": "suspended_ou_id"}


async def find_units(aws: Aws, tenancy: Tenancy, parent_id: str) -> dict[str, str]:
    """The ids of the units directly below a root or unit, by name."""
    async with aws.client("organizations", tenancy.home_region) as organizations:
        pages = organizations.get_paginator("list_organizational_units_for_parent").paginate(ParentId=parent_id)
        return {unit["Name"]: unit["Id"] async for page in pages for unit in page["OrganizationalUnits"]}


async def make_unit(engine: AsyncEngine, aws: Aws, tenancy: Tenancy, parent_id: str, name: str) -> str:
    """The id of the unit of that name below the parent, which is made if it is missing."""
    async with (
        organization_turn(engine, aws, tenancy.id),
        aws.client("organizations", tenancy.home_region) as organizations,
    ):
        try:
            answer = await organizations.create_organizational_unit(ParentId=parent_id, Name=name)
            return answer["OrganizationalUnit"]["Id"]
        except organizations.exceptions.DuplicateOrganizationalUnitException:
            units = await find_units(aws, tenancy, parent_id)
    # AWS compares names without regard to case.
    return next(unit_id for unit, unit_id in units.items() if unit.casefold() == name.casefold())


async def missing_units(run: Run) -> dict[str, str]:
    """The tenancy's units, and their columns, whose id is not below the root; a unit may bear any name there."""
    assert run.tenancy.aws_root_id is not None, "an earlier stage has stored it"
    units = await find_units(run.aws, run.tenancy, run.tenancy.aws_root_id)
    there = set(units.values())
    return {name: column for name, column in TENANCY_UNITS.items() if getattr(run.tenancy, column) not in there}


async def make_missing_units(run: Run) -> None:
    """Find or make the tenancy's units that are not there, and remember their ids."""
    assert run.tenancy.aws_root_id is not None, "an earlier stage has stored it"
    made = {
        column: await make_unit(run.engine, run.aws, run.tenancy, run.tenancy.aws_root_id, name)
        for name, column in (await missing_units(run)).items()
    }
    if not made:
        return
    async with run.write() as session:
        await session.execute(update(Tenancy).where(Tenancy.id == run.tenancy.id).values(**made))
        if "foundation_ou_id" in made:
            await _remember_foundation(session, run.tenancy, made["foundation_ou_id"])


async def _remember_foundation(session: AsyncSession, tenancy: Tenancy, unit_id: str) -> None:
    remembered = await session.scalars(
        update(AccountType)
        .where(AccountType.tenancy_id == tenancy.id, AccountType.foundation.is_(True), AccountType.name == FOUNDATION)
        .values(organizational_unit_id=unit_id)
        .returning(AccountType.id)
    )
    for account_type_id in remembered.all():
        await wake_attached(session, tenancy.id, account_type_id=account_type_id)


async def remember_unit(session: AsyncSession, account_type: AccountType, unit_id: str | None) -> None:
    await session.execute(
        update(AccountType)
        .where(AccountType.tenancy_id == account_type.tenancy_id, AccountType.id == account_type.id)
        .values(organizational_unit_id=unit_id)
        .execution_options(synchronize_session=False)
    )
    if unit_id is not None:
        await wake_attached(session, account_type.tenancy_id, account_type_id=account_type.id)


async def create_unit_of_type(engine: AsyncEngine, aws: Aws, account_type_id: UUID) -> None:
    """Make the OU of an account type below Workloads; nothing is done for one that has its OU or cannot have it yet."""
    rows = (
        select(AccountType, Tenancy)
        .join(Tenancy, Tenancy.id == AccountType.tenancy_id)
        .where(
            AccountType.id == account_type_id,
            AccountType.organizational_unit_id.is_(None),
            AccountType.foundation.is_(False),
        )
    )
    async with transaction(engine) as session:
        row = (await session.execute(rows)).one_or_none()
    if row is None or row.Tenancy.workloads_ou_id is None:
        return
    unit_id = await make_unit(engine, aws, row.Tenancy, row.Tenancy.workloads_ou_id, row.AccountType.name)
    async with transaction(engine) as session:
        await remember_unit(session, row.AccountType, unit_id)
