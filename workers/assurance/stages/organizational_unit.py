"""The account in the OU of its account type, where the type's service control policies bind it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.account_types.models import AccountType
from workers.assurance import protection
from workers.assurance.protection import await_policies
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, StageStopped, cis, finding, wait
from workers.assurance.tenancy import initializing
from workers.assurance.units import (
    PERMISSIONS,
    create_unit,
    declare_name,
    forget_unit,
    make_missing_units,
    name_taken,
    remember_unit,
)
from workers.aws.errors import is_outcome_unknown
from workers.aws.session import CALL_SECONDS, QUARANTINE_SECONDS
from workers.aws.turns import organization_turn

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

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
    async with run.aws.client("organizations", run.tenancy.home_region, once=True) as organizations:
        try:
            await _move(run, organizations, account_type, unit_id)
        except organizations.exceptions.DuplicateAccountException:
            # Somebody else has just moved it there.
            return
        except (
            organizations.exceptions.DestinationParentNotFoundException,
            organizations.exceptions.TargetNotFoundException,
        ) as error:
            await _forget_unit(run, account_type, unit_id)
            raise _unit_gone(account_type.name, unit_id) from error


async def _move(run: Run, organizations: "OrganizationsClient", account_type: AccountType, unit_id: str) -> None:
    async with organization_turn(run.engine, run.aws, run.tenancy.id):
        parent = await _parent(run)
        if parent != unit_id:
            # Within the turn, in which nobody detaches what was just seen.
            await await_policies(run, organizations, account_type, unit_id)
            await run.lease.renew()
            # Nobody else may hold the lease before this call has ended.
            run.lease.check(margin=CALL_SECONDS)
            try:
                await organizations.move_account(
                    AccountId=run.aws_account_id, SourceParentId=parent, DestinationParentId=unit_id
                )
            except Exception as error:
                if is_outcome_unknown(error):
                    raise _outcome_unknown() from error
                raise


def _outcome_unknown() -> StageStopped:
    """AWS may hear the call until then; a later move that it met would be undone by it."""
    return wait(
        "MOVE_OUTCOME_UNKNOWN",
        "The answer of AWS to MoveAccount was lost. Freehold waits until AWS can no longer hear that call, and then "
        "looks where the account is.",
        QUARANTINE_SECONDS,
    )


async def _make_unit(run: Run, account_type: AccountType) -> str:
    workloads = run.tenancy.workloads_ou_id
    if account_type.foundation or workloads is None:
        raise initializing(run.tenancy)
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        try:
            return await _make_below(run, organizations, workloads, account_type)
        except organizations.exceptions.ParentNotFoundException as error:
            await make_missing_units(run)
            raise _unit_gone("Workloads", workloads) from error


async def _make_below(run: Run, organizations: "OrganizationsClient", workloads: str, account_type: AccountType) -> str:
    # The type is looked at within the turn: until it came, somebody may have made the unit and given it another name.
    async with organization_turn(run.engine, run.aws, run.tenancy.id):
        async with run.write() as session:
            declared = await declare_name(session, account_type.id)
        if declared.organizational_unit_id is not None:
            return declared.organizational_unit_id
        assert declared.aws_name is not None, "just declared"
        made = await create_unit(organizations, workloads, declared.aws_name)
        async with run.write() as session:
            unit_id = await remember_unit(session, run.tenancy.id, account_type.id, made)
    if unit_id is None:
        raise name_taken(declared.aws_name)
    return unit_id


async def _forget_unit(run: Run, account_type: AccountType, unit_id: str) -> None:
    """Have the unit of the account type found or made anew: the tenancy's own here, others by the next attempt."""
    if account_type.foundation:
        await make_missing_units(run)
        return
    async with run.write() as session:
        await forget_unit(session, account_type, unit_id)


def _unit_gone(name: str, unit_id: str) -> StageStopped:
    return wait("UNIT_GONE", f"The unit {name} ({unit_id}) is no longer in AWS; Freehold finds or makes it anew.")


async def _type(run: Run) -> AccountType:
    async with run.read() as session:
        return await session.get_one(AccountType, run.account.account_type_id)


async def _parent(run: Run) -> str:
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        return (await organizations.list_parents(ChildId=run.aws_account_id))["Parents"][0]["Id"]


STAGE = Stage(
    name="organizational_unit",
    title="Organizational unit",
    description="Moves the account into the unit of its account type, once the type's policies are in force there.",
    controls=(STRUCTURED,),
    permissions=(
        *PERMISSIONS,
        "organizations:ListParents",
        *protection.PERMISSIONS,
        "organizations:MoveAccount",
    ),
    check=check,
    apply=apply,
)
