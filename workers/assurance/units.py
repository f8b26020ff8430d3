"""Organizational units: found or made, whichever it takes."""

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import exists, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.account_types.models import AccountType
from server.account_types.service import FOUNDATION, wake
from server.leases import NO_ERROR
from server.policies.service import wake_attached
from server.tenancies.models import Tenancy
from workers.assurance.run import Run
from workers.assurance.stage import StageStopped, wait
from workers.aws.session import Aws
from workers.aws.turns import organization_turn

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

PERMISSIONS = ("organizations:CreateOrganizationalUnit", "organizations:ListOrganizationalUnitsForParent")

NAME_TAKEN = "NAME_TAKEN"
# The units that every tenancy has below the root -> the tenancy's column that holds the id.
TENANCY_UNITS = {"Foundation": "foundation_ou_id", "Workloads": "workloads_ou_id", "Suspended": "suspended_ou_id"}


async def list_units(organizations: "OrganizationsClient", parent_id: str) -> dict[str, str]:
    """The ids of the units directly below a root or unit, by name."""
    pages = organizations.get_paginator("list_organizational_units_for_parent").paginate(ParentId=parent_id)
    return {unit["Name"]: unit["Id"] async for page in pages for unit in page["OrganizationalUnits"]}


async def find_unit(organizations: "OrganizationsClient", parent_id: str, name: str) -> str | None:
    """The id of the unit of that name below the parent."""
    units = await list_units(organizations, parent_id)
    # AWS compares names without regard to case.
    return next((unit_id for unit, unit_id in units.items() if unit.casefold() == name.casefold()), None)


async def create_unit(organizations: "OrganizationsClient", parent_id: str, name: str) -> str:
    """The id of the unit of that name below the parent, which is made if it is missing; for within a turn."""
    try:
        answer = await organizations.create_organizational_unit(ParentId=parent_id, Name=name)
        return answer["OrganizationalUnit"]["Id"]
    except organizations.exceptions.DuplicateOrganizationalUnitException as error:
        found = await find_unit(organizations, parent_id, name)
        if found is None:
            raise name_taken(name) from error
        return found


async def make_unit(engine: AsyncEngine, aws: Aws, tenancy: Tenancy, parent_id: str, name: str) -> str:
    """As `create_unit`, in a turn of its own."""
    async with (
        organization_turn(engine, aws, tenancy.id),
        aws.client("organizations", tenancy.home_region) as organizations,
    ):
        return await create_unit(organizations, parent_id, name)


def name_taken(name: str) -> StageStopped:
    """Of one that is being renamed or deleted there."""
    return wait(NAME_TAKEN, f"AWS still has another unit named {name!r}; Freehold goes on when the name is free.")


async def missing_units(run: Run) -> dict[str, str]:
    """The tenancy's units, and their columns, whose id is not below the root; a unit may bear any name there."""
    assert run.tenancy.aws_root_id is not None, "an earlier stage has stored it"
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        there = set((await list_units(organizations, run.tenancy.aws_root_id)).values())
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
        .values(organizational_unit_id=unit_id, aws_name=FOUNDATION)
        .returning(AccountType.id)
    )
    for account_type_id in remembered.all():
        await wake_attached(session, tenancy.id, account_type_id=account_type_id)


async def declare_name(session: AsyncSession, account_type_id: UUID) -> AccountType:
    """The type, locked. While it has no unit, the name under which AWS is asked for one is on record from now on."""
    found = select(AccountType).where(AccountType.id == account_type_id).with_for_update(key_share=True)
    account_type = (await session.scalars(found)).one()
    if account_type.organizational_unit_id is None and account_type.aws_name is None:
        account_type.aws_name = account_type.name
    return account_type


async def remember_unit(session: AsyncSession, tenancy_id: UUID, account_type_id: UUID, unit_id: str) -> str | None:
    """The id of the type's unit in AWS: this one, unless it has one by now.

    None when this is the unit of another type, which is being renamed.
    """
    of_another = exists().where(
        AccountType.tenancy_id == tenancy_id,
        AccountType.organizational_unit_id == unit_id,
        AccountType.id != account_type_id,
    )
    taken = bool(await session.scalar(select(of_another)))
    # No call has made one of its own then, so under another name it is another beginning. What stood in the way of a
    # unit that is there does so no more, whoever has made it.
    found = {"aws_name": None} if taken else {"organizational_unit_id": unit_id, **NO_ERROR}
    ours = (AccountType.tenancy_id == tenancy_id, AccountType.id == account_type_id)
    written = await session.scalar(
        update(AccountType)
        .where(*ours, AccountType.organizational_unit_id.is_(None))
        .values(**found)
        .returning(AccountType.organizational_unit_id)
        .execution_options(synchronize_session=False)
    )
    if written is not None:
        await wake_attached(session, tenancy_id, account_type_id=account_type_id)
    return await session.scalar(select(AccountType.organizational_unit_id).where(*ours))


async def forget_unit(session: AsyncSession, account_type: AccountType, unit_id: str) -> None:
    """AWS does not have this unit of the type any more: unless that is done by now, it is to be found or made anew."""
    forgotten = await session.scalar(
        update(AccountType)
        .where(
            AccountType.tenancy_id == account_type.tenancy_id,
            AccountType.id == account_type.id,
            AccountType.organizational_unit_id == unit_id,
        )
        .values(organizational_unit_id=None, aws_name=None)
        .returning(AccountType.id)
        .execution_options(synchronize_session=False)
    )
    if forgotten is not None:
        await wake(session, account_type.id)
