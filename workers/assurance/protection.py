"""An account joins the unit of a type when the type's policies are in force there, so that it is never without."""

from typing import TYPE_CHECKING, Final

from server.account_types.models import AccountType
from server.policies.service import attach_again, wanted_on_type
from workers.assurance.run import Run
from workers.assurance.stage import ask, wait

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

POLICY_TYPE: Final = "SERVICE_CONTROL_POLICY"
PERMISSIONS = ("organizations:ListPoliciesForTarget",)


async def await_policies(
    run: Run, organizations: "OrganizationsClient", account_type: AccountType, unit_id: str
) -> None:
    """Raise StageStopped unless the unit has every policy of the type: then the account stays where it is, with what
    protects it there.

    The foundation does not wait: its policies come to AWS when its accounts have brought it so far.
    """
    if account_type.foundation:
        return
    async with run.read() as session:
        wanted = await wanted_on_type(session, run.tenancy.id, account_type.id)
    if not wanted:
        return
    pages = organizations.get_paginator("list_policies_for_target").paginate(TargetId=unit_id, Filter=POLICY_TYPE)
    there = {policy["Id"] async for page in pages for policy in page["Policies"]}
    lacking = [each for each in wanted if each.aws_policy_id not in there]
    if not lacking:
        return
    refused = [each.name for each in lacking if each.is_refused]
    if refused:
        raise ask(
            "POLICIES_REFUSED",
            f"AWS has refused policies of the account type {account_type.name}: {', '.join(refused)}. Until they are "
            "in force the account stays in the unit that it is in, with the policies there. Put right what their "
            "attachments say and retry their rollouts, or detach them; then retry the setup.",
        )
    lost = [each.attachment_id for each in lacking if each.is_active]
    if lost:
        async with run.write() as session:
            await attach_again(session, run.tenancy.id, lost)
    raise wait(
        "POLICIES_PENDING",
        f"Policies of the account type {account_type.name} are not in force in its unit yet: "
        f"{', '.join(each.name for each in lacking)}. The account joins the unit when they are, and stays until then "
        "in the one that it is in.",
    )
