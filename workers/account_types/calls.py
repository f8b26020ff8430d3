"""The calls to AWS Organizations about the unit of an account type. Each returns what is to be written then."""

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from server.account_types.models import AccountType
from workers import steps
from workers.account_types import outcomes
from workers.account_types.outcomes import Asked
from workers.assurance.runner import backoff
from workers.assurance.units import create_unit, find_unit, list_units

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

PERMISSIONS = (
    "organizations:CreateOrganizationalUnit",
    "organizations:DeleteOrganizationalUnit",
    "organizations:ListAccountsForParent",
    "organizations:ListOrganizationalUnitsForParent",
    "organizations:MoveAccount",
    "organizations:UpdateOrganizationalUnit",
)

Keep: TypeAlias = steps.Keep[AccountType]
# What a call returns before it is awaited.
Coming: TypeAlias = Coroutine[Any, Any, Keep]


async def create(account_type: AccountType, workloads_id: str, organizations: "OrganizationsClient") -> Keep:
    """Create the unit, or find the one that an earlier call has created."""
    assert account_type.aws_name is not None, "written before the call"
    unit_id = await create_unit(organizations, workloads_id, account_type.aws_name)
    return partial(
        outcomes.keep_unit, unit_id=unit_id, asked=Asked.of(account_type), delay=backoff(account_type.attempts + 1)
    )


async def find(account_type: AccountType, workloads_id: str, organizations: "OrganizationsClient") -> Keep:
    """Find what a call has created whose answer was lost, for a type that is to go."""
    assert account_type.aws_name is not None, "written before the call"
    unit_id = await find_unit(organizations, workloads_id, account_type.aws_name)
    return partial(outcomes.keep_found, unit_id=unit_id)


async def rename(
    account_type: AccountType,
    name: str,
    unit_id: str,
    workloads_id: str,
    organizations: "OrganizationsClient",
) -> Keep:
    """Give the unit a name. One that another type's unit has still is waited for."""
    try:
        await organizations.update_organizational_unit(OrganizationalUnitId=unit_id, Name=name)
    except organizations.exceptions.OrganizationalUnitNotFoundException:
        return partial(outcomes.keep_missing, unit_id=unit_id)
    except organizations.exceptions.DuplicateOrganizationalUnitException:
        holder = await find_unit(organizations, workloads_id, name)
        if holder != unit_id:
            return _keep(outcomes.keep_name_taken, account_type, name=name, holder=holder)
    return partial(outcomes.keep_renamed, name=name)


async def delete(
    account_type: AccountType, unit_id: str, closed: Mapping[str, str], organizations: "OrganizationsClient"
) -> Keep:
    """Delete the unit, once the closed accounts are out of it; that it is gone already is as good.

    `closed` says where each closed account of the type belongs.
    """
    parents = organizations.exceptions.ParentNotFoundException
    with contextlib.suppress(organizations.exceptions.OrganizationalUnitNotFoundException, parents):
        inside = [account for account in await _accounts(organizations, unit_id) if account in closed] if closed else []
        if inside:
            await organizations.move_account(
                AccountId=inside[0], SourceParentId=unit_id, DestinationParentId=closed[inside[0]]
            )
            return outcomes.keep_on
        try:
            await organizations.delete_organizational_unit(OrganizationalUnitId=unit_id)
        except organizations.exceptions.OrganizationalUnitNotEmptyException:
            accounts, units = await _accounts(organizations, unit_id), await list_units(organizations, unit_id)
            return _keep(outcomes.keep_not_empty, account_type, accounts=accounts, units=sorted(units))
    return outcomes.keep_deleted


async def _accounts(organizations: "OrganizationsClient", unit_id: str) -> list[str]:
    pages = organizations.get_paginator("list_accounts_for_parent").paginate(ParentId=unit_id)
    return [account["Id"] async for page in pages for account in page["Accounts"]]


def _keep(outcome: Callable[..., Awaitable[None]], account_type: AccountType, **values: object) -> Keep:
    """An outcome that may be an error of the call."""
    return partial(outcome, asked=Asked.of(account_type), delay=backoff(account_type.attempts + 1), **values)
