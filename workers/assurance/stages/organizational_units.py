"""The units that every tenancy has: Foundation, Workloads and Suspended, below the root."""

from collections.abc import Sequence

from server.accounts.models import AccountRole
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, cis, finding
from workers.assurance.units import PERMISSIONS, TENANCY_UNITS, make_missing_units, missing_units

STRUCTURED = cis("2.1.4")


async def check(run: Run) -> Sequence[Finding]:
    missing = await missing_units(run)
    return [
        finding(
            name not in missing,
            f"the tenancy's unit {name} is {getattr(run.tenancy, column)}, which is "
            f"{'not ' if name in missing else ''}below the root",
            STRUCTURED,
        )
        for name, column in TENANCY_UNITS.items()
    ]


async def apply(run: Run) -> None:
    await make_missing_units(run)


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
