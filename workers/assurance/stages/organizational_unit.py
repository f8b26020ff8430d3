"""The account in the OU of its account type, where the type's service control policies bind it."""

from collections.abc import Sequence

from server.account_types.models import AccountType
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, cis, finding
from workers.assurance.tenancy import initializing
from workers.assurance.units import PERMISSIONS, make_unit, remember_unit

STRUCTURED = cis("2.1.4")


async def check(run: Run) -> Sequence[Finding]:
    account_type = await _type(run)
    if account_type.organizational_unit_id is None:
        return [finding(False, f"the account type {account_type.name} has no unit yet", STRUCTURED)]
    parent = await _parent(run)
    return [
        finding(
            parent == account_type.organizational_unit_id,
            f"the account is in {parent}, its type's unit is {account_type.organizational_unit_id}",
            STRUCTURED,
        )
    ]


async def apply(run: Run) -> None:
    account_type = await _type(run)
    unit_id = account_type.organizational_unit_id or await _make_unit(run, account_type)
    async with (
        run.aws.organization_writes[run.tenancy.id],
        run.aws.client("organizations", run.tenancy.home_region) as organizations,
    ):
        parent = await _parent(run)
        if parent == unit_id:
            return
        try:
            await organizations.move_account(
                AccountId=run.aws_account_id, SourceParentId=parent, DestinationParentId=unit_id
            )
        except organizations.exceptions.DuplicateAccountException:
            # Somebody else has just moved it there.
            return


async def _make_unit(run: Run, account_type: AccountType) -> str:
    if account_type.foundation or run.tenancy.workloads_ou_id is None:
        raise initializing(run.tenancy)
    unit_id = await make_unit(run.aws, run.tenancy, run.tenancy.workloads_ou_id, account_type.name)
    async with run.write() as session:
        await remember_unit(session, account_type, unit_id)
    return unit_id


async def _type(run: Run) -> AccountType:
    async with run.read() as session:
        return await session.get_one(AccountType, run.account.account_type_id)


async def _parent(run: Run) -> str:
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        return (await organizations.list_parents(ChildId=run.aws_account_id))["Parents"][0]["Id"]


STAGE = Stage(
    name="organizational_unit",
    title="Organizational unit",
    description="Moves the account into the unit of its account type, where the type's policies bind it.",
    controls=(STRUCTURED,),
    permissions=(*PERMISSIONS, "organizations:ListParents", "organizations:MoveAccount"),
    check=check,
    apply=apply,
)
