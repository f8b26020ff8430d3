"""AWS is as it was left, whatever ended the simulator."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from server.embedded import ServiceError, embedded
from server.embedded.directory import LOCK
from tests.server.embedded.aws import Aws, stay_on
from tests.server.embedded.processes import child_of
from tests.server.embedded.test_accounts import CONTACT, PUBLIC_ACCESS
from tests.server.embedded.test_organizations import code

SIMULATOR = {"simulator"}


async def fill(aws: Aws) -> Aws:
    """An organization with a member that has a bit of everything; the member."""
    async with aws.client("organizations") as organizations:
        await organizations.create_organization(FeatureSet="ALL")
        root = (await organizations.list_roots())["Roots"][0]["Id"]
        await organizations.enable_policy_type(RootId=root, PolicyType="SERVICE_CONTROL_POLICY")
        unit = await organizations.create_organizational_unit(ParentId=root, Name="Workloads")
        destination = unit["OrganizationalUnit"]["Id"]
        account = await aws.create_account("Kept", "kept@example.com")
        await organizations.move_account(AccountId=account, SourceParentId=root, DestinationParentId=destination)
    member = await aws.assume(account)
    async with member.client("iam") as iam, member.client("account") as contacts:
        await iam.create_account_alias(AccountAlias="kept-alias")
        await iam.update_account_password_policy(MinimumPasswordLength=14)
        await contacts.put_alternate_contact(AlternateContactType="SECURITY", **CONTACT)
    async with member.client("s3control") as client:
        client.meta.events.register("before-call.s3-control", stay_on(aws.endpoint))
        await client.put_public_access_block(AccountId=account, PublicAccessBlockConfiguration=PUBLIC_ACCESS)
    async with member.client("ec2", "eu-west-1") as ec2:
        await ec2.enable_ebs_encryption_by_default()
    return member


async def describe(aws: Aws, member: Aws) -> dict[str, object]:
    async with aws.client("organizations") as organizations, aws.client("account") as contacts:
        parent = (await organizations.list_parents(ChildId=member.account))["Parents"][0]["Id"]
        unit = await organizations.describe_organizational_unit(OrganizationalUnitId=parent)
        contact = await contacts.get_alternate_contact(AccountId=member.account, AlternateContactType="SECURITY")
        seen: dict[str, object] = {
            "accounts": await aws.accounts(),
            "unit": unit["OrganizationalUnit"],
            "contact": contact["AlternateContact"],
        }
    # With the credentials of before: keys are kept too.
    async with member.client("iam") as iam, member.client("sts") as sts:
        seen["identity"] = (await sts.get_caller_identity())["Arn"]
        seen["aliases"] = (await iam.list_account_aliases())["AccountAliases"]
        seen["passwords"] = (await iam.get_account_password_policy())["PasswordPolicy"]
    async with member.client("s3control") as client:
        client.meta.events.register("before-call.s3-control", stay_on(aws.endpoint))
        seen["public access"] = (await client.get_public_access_block(AccountId=member.account))[
            "PublicAccessBlockConfiguration"
        ]
    async with member.client("ec2", "eu-west-1") as ec2:
        seen["encryption"] = (await ec2.get_ebs_encryption_by_default())["EbsEncryptionByDefault"]
        # Random identifiers that were only ever read have to last as well.
        seen["networks"] = [network["VpcId"] for network in (await ec2.describe_vpcs())["Vpcs"]]
    return seen


async def test_state_survives_a_kill_and_a_restart(data_dir: Path) -> None:
    async with embedded(data_dir, services=SIMULATOR, fsync=False) as services:
        aws = Aws(services.aws_endpoint)
        member = await fill(aws)
        before = await describe(aws, member)

        simulator = child_of(psutil.Process(), "server.embedded.simulator")
        simulator.send_signal(signal.SIGKILL)
        # Restarted on the same port; the SDK's own retries bridge the gap.
        assert await describe(aws, member) == before
        assert not simulator.is_running()

    async with embedded(data_dir, services=SIMULATOR, fsync=False) as services:
        aws = Aws(services.aws_endpoint)
        member = Aws(aws.endpoint, member.access_key, member.secret_key, member.token, member.account)
        assert await describe(aws, member) == before

        other = await aws.assume(await aws.create_account("Later", "later@example.com"))
        async with other.client("iam") as iam:
            with pytest.raises(ClientError) as taken:
                await iam.create_account_alias(AccountAlias="kept-alias")
    assert code(taken) == "EntityAlreadyExists"


@pytest.fixture(scope="module")
async def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of an AWS with an organization, in one file."""
    data_dir = tmp_path_factory.mktemp("state")
    async with (
        embedded(data_dir, services=SIMULATOR, fsync=False) as services,
        Aws(services.aws_endpoint).client("organizations") as organizations,
    ):
        await organizations.create_organization(FeatureSet="ALL")
    path = data_dir / "aws" / "state.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    return path


def put_damaged(state: Path, path: Path, damage: str) -> None:
    path.parent.mkdir(parents=True)
    (path.parent.parent / LOCK).touch()
    whole = state.read_bytes()
    contents = {"emptied": b"", "cut short": whole[: len(whole) // 2], "overwritten": b"no database " * 1000}
    path.write_bytes(contents.get(damage, whole))
    if damage == "one snapshot damaged":
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE snapshot SET state = x'00' WHERE service = 'organizations'")


@pytest.mark.parametrize("damage", ["emptied", "cut short", "overwritten", "one snapshot damaged"])
async def test_a_damaged_state_is_an_error_not_an_empty_aws(data_dir: Path, state: Path, damage: str) -> None:
    put_damaged(state, data_dir / "aws" / state.name, damage)
    with pytest.raises(ServiceError, match="The AWS simulator cannot read its state"):
        async with embedded(data_dir, services=SIMULATOR, fsync=False):
            pass
