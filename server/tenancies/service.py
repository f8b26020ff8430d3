"""The rules of tenancies."""

import re

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.errors import UserErrorCode, refuse
from server.tenancies.models import Tenancy

# The role that AWS Organizations makes in every account it creates; its trust is the management account.
ROLE = "OrganizationAccountAccessRole"

NAME = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?!-)){0,30}[a-z0-9]")
REGION = re.compile(r"[a-z]{2,3}(?:-[a-z]+)+-[0-9]")
PHONE = re.compile(r"[0-9()+\-\s]{1,25}")

# The Regions that every AWS account has enabled from the start, so that none is left unhardened by default:
# https://docs.aws.amazon.com/accounts/latest/reference/manage-acct-regions.html
DEFAULT_REGIONS = (
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
)

# botocore, endpoints.json: what the names of a partition's Regions begin with; all others are of the partition `aws`.
PARTITIONS = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "us-iso-": "aws-iso",
    "us-isob-": "aws-iso-b",
    "eu-isoe-": "aws-iso-e",
    "us-isof-": "aws-iso-f",
    "eusc-": "aws-eusc",
}


def partition(region: str) -> str:
    """The partition of a Region, the second part of every ARN there."""
    return next((name for start, name in PARTITIONS.items() if region.startswith(start)), "aws")


async def create_tenancy(
    session: AsyncSession,
    *,
    name: str,
    email_template: str,
    security_contact: tuple[str, str, str],
    home_region: str = "us-east-1",
    regions: tuple[str, ...] = DEFAULT_REGIONS,
) -> Tenancy:
    """Add a tenancy; `security_contact` is a name, an e-mail and a phone number.

    Raises Refused: VALIDATION, NAME_IN_USE. The caller checks the e-mail template, a rule of accounts.
    """
    if not NAME.fullmatch(name):
        raise refuse(
            UserErrorCode.VALIDATION,
            "The name of a tenancy has 2 to 32 lower-case letters, digits and single hyphens.",
            "name",
        )
    for region in (home_region, *regions):
        if not REGION.fullmatch(region):
            raise refuse(UserErrorCode.VALIDATION, f"{region!r} is not the name of an AWS Region.", "regions")
    if home_region not in regions:
        raise refuse(UserErrorCode.VALIDATION, f"The home Region {home_region} is not among the Regions.", "homeRegion")
    contact_name, contact_email, contact_phone = security_contact
    if not 1 <= len(contact_name) <= 64:
        raise refuse(UserErrorCode.VALIDATION, "The security contact's name has 1 to 64 characters.", "securityContact")
    if not re.fullmatch(r"[^\s@]+@[^\s@]+\.[^\s@]+", contact_email):
        raise refuse(UserErrorCode.VALIDATION, "The security contact's e-mail is malformed.", "securityContact")
    if not PHONE.fullmatch(contact_phone):
        raise refuse(
            UserErrorCode.VALIDATION, "The security contact's phone has at most 25 digits, spaces, ( ) + -.", "phone"
        )
    if (await session.scalars(select(Tenancy.id).where(Tenancy.name == name))).first() is not None:
        raise refuse(UserErrorCode.NAME_IN_USE, f"There is a tenancy {name!r} already.", "name")
    tenancy = Tenancy(
        name=name,
        home_region=home_region,
        regions=list(regions),
        email_template=email_template,
        security_contact_name=contact_name,
        security_contact_email=contact_email,
        security_contact_phone=contact_phone,
    )
    session.add(tenancy)
    await session.flush()
    return tenancy
