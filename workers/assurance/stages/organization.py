"""The tenancy's organization: created, or the existing one of the management account adopted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy.exc import IntegrityError

from server.accounts.models import Account, AccountRole
from server.tenancies.models import Tenancy
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, ask, finding
from workers.aws.turns import organization_turn

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient
    from types_aiobotocore_organizations.type_defs import OrganizationTypeDef


async def check(run: Run) -> Sequence[Finding]:
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        organization = await _find(organizations)
    if organization is None:
        return [finding(False, "the management account is in no organization")]
    found, features = organization["Id"], organization["FeatureSet"]
    kept = run.tenancy.aws_organization_id
    return [
        finding(found == kept, f"the organization is {found}, the tenancy's is {kept}"),
        finding(features == "ALL", f"the feature set is {features}"),
        finding(run.tenancy.aws_root_id is not None, f"the root is {run.tenancy.aws_root_id}"),
        finding(run.account.aws_account_id == organization["MasterAccountId"], "the management account is known"),
    ]


async def apply(run: Run) -> None:
    async with run.aws.client("sts", run.tenancy.home_region) as sts:
        own_account = (await sts.get_caller_identity())["Account"]
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        organization = await _find(organizations) or await _create(run, organizations)
        _refuse_unsuitable(run, organization, own_account)
        root = (await organizations.list_roots())["Roots"][0]["Id"]
    try:
        async with run.write() as session:
            account = await session.get_one(Account, run.account.id)
            account.aws_account_id, account.email = own_account, organization["MasterAccountEmail"]
            # Written one by one: rows are locked in the order setup, account, tenancy.
            await session.flush()
            tenancy = await session.get_one(Tenancy, run.tenancy.id)
            tenancy.aws_organization_id, tenancy.aws_root_id = organization["Id"], root
    except IntegrityError as error:
        if "uq_account_email" in str(error):
            raise ask(
                "MANAGEMENT_EMAIL_IN_USE",
                f"Another account of this tenancy has the e-mail {organization['MasterAccountEmail']}, which is that "
                "of the management account in AWS. Give the other account another e-mail and retry the setup.",
            ) from error
        raise ask(
            "ORGANIZATION_IN_USE",
            f"The organization {organization['Id']} belongs to another tenancy of this installation. Give the worker "
            "credentials of the management account of another organization, and retry the setup.",
        ) from error


async def _find(organizations: "OrganizationsClient") -> "OrganizationTypeDef | None":
    try:
        return (await organizations.describe_organization())["Organization"]
    except organizations.exceptions.AWSOrganizationsNotInUseException:
        return None


async def _create(run: Run, organizations: "OrganizationsClient") -> "OrganizationTypeDef":
    if run.tenancy.aws_organization_id is not None:
        raise ask(
            "ORGANIZATION_MISSING",
            f"The organization {run.tenancy.aws_organization_id} of this tenancy is gone, or the worker's credentials "
            "belong to another account. Correct the credentials and retry the setup.",
        )
    async with organization_turn(run.engine, run.aws, run.tenancy.id):
        try:
            return (await organizations.create_organization(FeatureSet="ALL"))["Organization"]
        except organizations.exceptions.AlreadyInOrganizationException:
            return (await organizations.describe_organization())["Organization"]


def _refuse_unsuitable(run: Run, organization: "OrganizationTypeDef", own_account: str) -> None:
    found, kept = organization["Id"], run.tenancy.aws_organization_id
    if organization["MasterAccountId"] != own_account:
        raise ask(
            "NOT_MANAGEMENT_ACCOUNT",
            f"The worker's credentials belong to the account {own_account}, a member of the organization {found}. "
            f"Give it credentials of its management account {organization['MasterAccountId']} and retry the setup.",
        )
    if organization["FeatureSet"] != "ALL":
        raise ask(
            "ORGANIZATION_NOT_IN_ALL_FEATURES_MODE",
            f"The organization {found} has consolidated billing only. Enable all features in AWS Organizations and "
            "retry the setup.",
        )
    if kept not in (None, found):
        raise ask(
            "ORGANIZATION_CHANGED",
            f"This tenancy governs the organization {kept}, but the worker's credentials belong to {found}. Correct "
            "the credentials and retry the setup.",
        )


STAGE = Stage(
    name="organization",
    title="AWS organization",
    description="Creates the organization with all features, or adopts the one that the management account has.",
    permissions=(
        "iam:CreateServiceLinkedRole",
        "organizations:CreateOrganization",
        "organizations:DescribeOrganization",
        "organizations:ListRoots",
        "sts:GetCallerIdentity",
    ),
    # CreateOrganization makes the role AWSServiceRoleForOrganizations in the caller's name.
    implied_permissions=("iam:CreateServiceLinkedRole",),
    check=check,
    apply=apply,
    roles=(AccountRole.MANAGEMENT,),
)
