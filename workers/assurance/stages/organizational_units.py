"""The units that every tenancy has: Foundation, Workloads and Suspended, below the root."""

from collections.abc import Sequence

from sqlalchemy import update

from server.account_types.models import AccountType
from server.account_types.service import FOUNDATION
from server.accounts.models import AccountRole
from server.tenancies.models import Tenancy
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, cis, finding
from workers.assurance.units import PERMISSIONS, find_units, make_unit

STRUCTURED = cis("2.1.4")

# Name of the unit -> the tenancy's column that holds its id.
UNITS = {"Foundation": "foundation_ou_id", "Workloads": "workloads_ou_id", "Suspended": "suspended_ou_id"}


async def check(run: Run) -> Sequence[Finding]:
    assert run.tenancy.aws_root_id is not None, "an earlier stage has stored it"
    units = await find_units(run.aws, run.tenancy, run.tenancy.aws_root_id)
    return [
        finding(
            units.get(name) is not None and units.get(name) == getattr(run.tenancy, column),
            f"the unit {name} is {units.get(name)}, the tenancy's is {getattr(run.tenancy, column)}",
            STRUCTURED,
        )
        for name, column in UNITS.items()
    ]


async def apply(run: Run) -> None:
    assert run.tenancy.aws_root_id is not None, "an earlier stage has stored it"
    made = {
        column: await make_unit(run.aws, run.tenancy, run.tenancy.aws_root_id, name) for name, column in UNITS.items()
    }
    async with run.write() as session:
        await session.execute(update(Tenancy).where(Tenancy.id == run.tenancy.id).values(**made))
        await session.execute(
            update(AccountType)
            .where(
                AccountType.tenancy_id == run.tenancy.id,
                AccountType.foundation.is_(True),
                AccountType.name == FOUNDATION,
            )
            .values(organizational_unit_id=made["foundation_ou_id"])
        )


STAGE = Stage(
    name="organizational_units",
    title="Organizational units",
    description="Creates the units Foundation, Workloads and Suspended, which hold all accounts by what they are for.",
    controls=(STRUCTURED,),
    permissions=PERMISSIONS,
    check=check,
    apply=apply,
    roles=(AccountRole.MANAGEMENT,),
)
