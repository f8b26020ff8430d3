"""Service control policies switched on: without it none can be attached."""

from collections.abc import Sequence

from server.accounts.models import AccountRole
from workers.assurance.protection import POLICY_TYPE
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, finding
from workers.aws.turns import organization_turn


async def check(run: Run) -> Sequence[Finding]:
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        roots = (await organizations.list_roots())["Roots"]
    enabled = {
        policy_type.get("Type")
        for root in roots
        if root["Id"] == run.tenancy.aws_root_id
        for policy_type in root["PolicyTypes"]
        if policy_type.get("Status") == "ENABLED"
    }
    return [finding(POLICY_TYPE in enabled, f"{POLICY_TYPE} is {'' if POLICY_TYPE in enabled else 'not '}enabled")]


async def apply(run: Run) -> None:
    assert run.tenancy.aws_root_id is not None, "the stage before has stored it"
    async with (
        organization_turn(run.engine, run.aws, run.tenancy.id),
        run.aws.client("organizations", run.tenancy.home_region) as organizations,
    ):
        try:
            await organizations.enable_policy_type(RootId=run.tenancy.aws_root_id, PolicyType=POLICY_TYPE)
        except organizations.exceptions.PolicyTypeAlreadyEnabledException:
            # It is being enabled, which takes AWS a while; the next check sees it.
            return


STAGE = Stage(
    name="policy_types",
    title="Service control policies",
    description="Enables service control policies in the organization.",
    permissions=("organizations:EnablePolicyType", "organizations:ListRoots"),
    check=check,
    apply=apply,
    roles=(AccountRole.MANAGEMENT,),
)
