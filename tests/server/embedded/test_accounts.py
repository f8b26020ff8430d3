"""What works per account: assumed roles, IAM, Account Management, S3 Control, EC2, and calls nobody implements."""

import pytest
from botocore.exceptions import ClientError

from tests.server.embedded.aws import ROLE, Aws, stay_on
from tests.server.embedded.test_organizations import code

PUBLIC_ACCESS = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
CONTACT = {"Name": "Security", "Title": "Team", "EmailAddress": "s@example.com", "PhoneNumber": "+1 555 0100"}


async def test_an_assumed_role_works_in_its_account(aws: Aws, member: Aws) -> None:
    async with member.client("sts") as sts:
        identity = await sts.get_caller_identity()
    assert identity["Account"] == member.account != aws.account
    assert identity["Arn"] == f"arn:aws:sts::{member.account}:assumed-role/{ROLE}/tests"


@pytest.mark.parametrize(("account", "role"), [("", "NoSuchRole"), ("999999999999", ROLE)])
async def test_a_role_that_does_not_exist_is_denied(aws: Aws, member: Aws, account: str, role: str) -> None:
    with pytest.raises(ClientError) as refused:
        await aws.assume(account or member.account, role)
    assert code(refused) == "AccessDenied"


async def test_a_closed_account_is_denied(aws: Aws) -> None:
    account = await aws.create_account("Closed", "closed@example.com")
    async with aws.client("organizations") as organizations:
        await organizations.close_account(AccountId=account)
    with pytest.raises(ClientError) as refused:
        await aws.assume(account)
    assert code(refused) == "AccessDenied"


async def test_a_temporary_key_that_was_never_issued_is_refused(aws: Aws) -> None:
    stranger = Aws(aws.endpoint, "ASIAAAAAAAAAAAAAAAAA")
    with pytest.raises(ClientError) as refused:
        await stranger.accounts()
    assert code(refused) == "ExpiredTokenException"


async def test_an_alias_is_unique_across_accounts(aws: Aws, member: Aws) -> None:
    other = await aws.assume(await aws.create_account("Alias", "alias@example.com"))
    async with member.client("iam") as mine, other.client("iam") as theirs:
        await mine.create_account_alias(AccountAlias="freehold-one")
        with pytest.raises(ClientError) as taken:
            await theirs.create_account_alias(AccountAlias="freehold-one")
        with pytest.raises(ClientError) as malformed:
            await theirs.create_account_alias(AccountAlias="Not--an-alias")
        await mine.create_account_alias(AccountAlias="freehold-two")
        # Replaced, so free again.
        await theirs.create_account_alias(AccountAlias="freehold-one")
        with pytest.raises(ClientError) as not_theirs:
            await theirs.delete_account_alias(AccountAlias="freehold-two")
        await theirs.delete_account_alias(AccountAlias="freehold-one")
        assert (await mine.list_account_aliases())["AccountAliases"] == ["freehold-two"]
        assert (await theirs.list_account_aliases())["AccountAliases"] == []
    assert code(taken) == "EntityAlreadyExists"
    assert code(malformed) == "ValidationError"
    assert code(not_theirs) == "NoSuchEntity"


async def test_password_policy_and_roles(member: Aws) -> None:
    support = "arn:aws:iam::aws:policy/AWSSupportAccess"
    async with member.client("iam") as iam:
        await iam.update_account_password_policy(MinimumPasswordLength=14, PasswordReusePrevention=24)
        await iam.create_role(RoleName="Support", AssumeRolePolicyDocument='{"Version":"2012-10-17","Statement":[]}')
        await iam.attach_role_policy(RoleName="Support", PolicyArn=support)
        policy = (await iam.get_account_password_policy())["PasswordPolicy"]
        role = (await iam.get_role(RoleName="Support"))["Role"]
        attached = (await iam.list_attached_role_policies(RoleName="Support"))["AttachedPolicies"]
    assert policy["MinimumPasswordLength"] == 14
    assert role["Arn"] == f"arn:aws:iam::{member.account}:role/Support"
    assert attached == [{"PolicyName": "AWSSupportAccess", "PolicyArn": support}]


async def test_contacts_are_set_from_either_account(aws: Aws, member: Aws) -> None:
    full = {
        "FullName": "Freehold",
        "AddressLine1": "1 Street",
        "City": "Town",
        "PostalCode": "12345",
        "CountryCode": "US",
        "PhoneNumber": "+1 555 0100",
    }
    async with aws.client("account") as management, member.client("account") as own:
        await management.put_alternate_contact(
            AccountId=member.account, AlternateContactType="SECURITY", **{**CONTACT, "Name": "Theirs"}
        )
        seen = (await own.get_alternate_contact(AlternateContactType="SECURITY"))["AlternateContact"]
        await own.put_alternate_contact(AlternateContactType="BILLING", **CONTACT)
        billing = await management.get_alternate_contact(AccountId=member.account, AlternateContactType="BILLING")
        with pytest.raises(ClientError) as nothing:
            await own.get_contact_information()
        await management.put_contact_information(AccountId=member.account, ContactInformation=full)
        contact = (await own.get_contact_information())["ContactInformation"]
        with pytest.raises(ClientError) as refused:
            await own.get_contact_information(AccountId=aws.account)
    assert seen["Name"] == "Theirs"
    assert billing["AlternateContact"]["EmailAddress"] == CONTACT["EmailAddress"]
    assert contact == full
    assert code(nothing) == "ResourceNotFoundException"
    assert code(refused) == "AccessDeniedException"


async def test_an_account_is_renamed(aws: Aws, member: Aws) -> None:
    account = await aws.create_account("Before", "rename@example.com")
    async with aws.client("account") as management, aws.client("organizations") as organizations:
        await management.put_account_name(AccountId=account, AccountName="After")
        described = (await organizations.describe_account(AccountId=account))["Account"]
        information = await management.get_account_information(AccountId=account)
    assert (described["Name"], described["Status"], described["State"]) == ("After", "ACTIVE", "ACTIVE")
    assert (information["AccountName"], information["AccountId"]) == ("After", account)


async def test_regions_are_listed(member: Aws) -> None:
    async with member.client("account") as client, member.client("ec2") as ec2:
        pages = client.get_paginator("list_regions").paginate(PaginationConfig={"PageSize": 10})
        listed = {region["RegionName"]: region["RegionOptStatus"] async for page in pages for region in page["Regions"]}
        described = (await ec2.describe_regions())["Regions"]
    assert listed["us-east-1"] == "ENABLED_BY_DEFAULT"
    assert listed["af-south-1"] == "DISABLED"
    assert "us-east-1" in {region["RegionName"] for region in described}


async def test_public_access_is_blocked_per_account(aws: Aws, member: Aws) -> None:
    async with member.client("s3control") as client:
        client.meta.events.register("before-call.s3-control", stay_on(member.endpoint))
        await client.put_public_access_block(AccountId=member.account, PublicAccessBlockConfiguration=PUBLIC_ACCESS)
        kept = await client.get_public_access_block(AccountId=member.account)
    async with aws.client("s3control") as client:
        client.meta.events.register("before-call.s3-control", stay_on(aws.endpoint))
        with pytest.raises(ClientError) as untouched:
            await client.get_public_access_block(AccountId=aws.account)
    assert kept["PublicAccessBlockConfiguration"] == PUBLIC_ACCESS
    assert code(untouched) == "NoSuchPublicAccessBlockConfiguration"


async def test_ec2_defaults_are_per_region(member: Aws) -> None:
    async with member.client("ec2", "eu-west-1") as ireland, member.client("ec2", "us-east-1") as virginia:
        await ireland.enable_ebs_encryption_by_default()
        await ireland.modify_instance_metadata_defaults(HttpTokens="required", HttpPutResponseHopLimit=2)
        metadata = (await ireland.get_instance_metadata_defaults())["AccountLevel"]
        encrypted = [
            (await region.get_ebs_encryption_by_default())["EbsEncryptionByDefault"] for region in (ireland, virginia)
        ]
        elsewhere = (await virginia.get_instance_metadata_defaults())["AccountLevel"]
    assert encrypted == [True, False]
    assert (metadata["HttpTokens"], metadata["HttpPutResponseHopLimit"]) == ("required", 2)
    assert "HttpTokens" not in elsewhere


@pytest.mark.parametrize(
    ("service", "call"),
    [
        ("organizations", "list_handshakes_for_account"),
        ("iam", "list_organizations_features"),
        ("ec2", "get_serial_console_access_status"),
        ("accessanalyzer", "list_analyzers"),
        ("securityhub", "list_standards_control_associations"),
    ],
)
async def test_what_is_not_implemented_says_so(aws: Aws, service: str, call: str) -> None:
    arguments = {"SecurityControlId": "IAM.1"} if service == "securityhub" else {}
    async with aws.client(service) as client:
        with pytest.raises(ClientError) as refused:
            await getattr(client, call)(**arguments)
    assert code(refused) == "NotImplemented"
    assert "The AWS simulator does not implement" in str(refused.value)
