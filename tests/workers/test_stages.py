"""Every stage against the simulator: on a new account, again, and after somebody undid its work."""

import json
from uuid import UUID

import pytest
from sqlalchemy import update

from server.account_types.models import AccountType
from server.accounts.models import AccountRole, AccountStatus
from server.assurance.models import SetupStatus
from server.database import transaction
from server.policies.requests import Target
from tests.workers import tags
from tests.workers.access import use_every_call
from tests.workers.proxies import answer, lose_answer, refuse
from tests.workers.rollouts import Policies
from tests.workers.world import BY_NAME, World, writes
from workers.assurance.run import Run
from workers.assurance.stage import MEMBERS, StageStopped
from workers.assurance.stages import STAGES
from workers.assurance.stages.iam_baseline import SUPPORT_ROLE

# What makes other stages possible and is asked for by no benchmark.
INFRASTRUCTURE = {
    "organization",
    "policy_types",
    "foundation_accounts",
    "create_account",
    "assume_role",
    "access",
    "withdrawn_access",
    "account_tags",
}
MEMBER_STAGES = [stage.name for stage in STAGES if stage.roles == MEMBERS]
HARDENING = ["account_details", "iam_baseline", "s3_public_access", "ebs_encryption", "instance_metadata"]


def test_the_catalogue_is_complete() -> None:
    assert len(BY_NAME) == len(STAGES)
    for stage in STAGES:
        assert stage.name.isidentifier()
        assert stage.title
        assert stage.description.endswith(".")
        assert stage.roles
        assert bool(stage.controls) is (stage.name not in INFRASTRUCTURE), stage.name
        assert bool(stage.permissions) is (stage.name != "foundation_accounts"), stage.name
        assert list(stage.permissions) == sorted(set(stage.permissions)), stage.name
        assert set(stage.implied_permissions) <= set(stage.permissions), stage.name
        assert all(control.version for control in stage.controls)
    # AWS Organizations User Guide, "Creating an organization": what CreateOrganization needs beside its own action.
    assert BY_NAME["organization"].implied_permissions == ("iam:CreateServiceLinkedRole",)


@pytest.mark.parametrize("name", HARDENING)
async def test_a_finding_names_a_control_that_its_stage_declares(world: World, hardened: UUID, name: str) -> None:
    setup_id = await world.reassure(hardened)
    async with world.holding(setup_id) as run:
        findings = await BY_NAME[name].check(run)
    await world.complete(setup_id)
    assert {finding.control for finding in findings} - {None} == set(BY_NAME[name].controls)


async def test_a_new_account_goes_through_every_stage(world: World, hardened: UUID) -> None:
    account = await world.account(hardened)
    assert account.status is AccountStatus.ACTIVE
    assert account.alias == "hardened-by-tests"
    assert await world.aws_accounts(account.email) == [account.aws_account_id]


async def test_the_second_time_no_stage_writes(world: World, hardened: UUID) -> None:
    setup_id = await world.reassure(hardened)
    async with world.holding(setup_id) as run:
        for name in MEMBER_STAGES:
            assert writes(await world.assure(run, name)) == [], name
    await world.complete(setup_id)


@pytest.mark.parametrize("name", HARDENING)
async def test_every_hardening_stage_changes_a_new_account(world: World, hardened: UUID, name: str) -> None:
    assert writes([*world.used[name]])


async def test_what_somebody_undid_is_mended(world: World, hardened: UUID) -> None:
    tenancy, account = await world.tenancy(), await world.account(hardened)
    assert account.aws_account_id is not None
    assert tenancy.aws_root_id is not None
    credentials = await world.aws.assume(account.aws_account_id, "us-east-1")
    async with world.aws.client("iam", "us-east-1", credentials) as iam:
        await iam.delete_account_password_policy()
        support = "arn:aws:iam::aws:policy/AWSSupportAccess"
        await iam.detach_role_policy(RoleName=SUPPORT_ROLE, PolicyArn=support)
        await iam.delete_account_alias(AccountAlias="hardened-by-tests")
    async with world.aws.client("s3control", "us-east-1", credentials) as s3control:
        await s3control.delete_public_access_block(AccountId=account.aws_account_id)
    async with world.aws.client("ec2", "eu-west-1", credentials) as ec2:
        await ec2.disable_ebs_encryption_by_default()
        await ec2.modify_instance_metadata_defaults(HttpTokens="optional")
    async with world.aws.client("account", "us-east-1", credentials) as client:
        await client.delete_alternate_contact(AlternateContactType="SECURITY")
    async with world.aws.client("organizations", "us-east-1") as organizations:
        parent = (await organizations.list_parents(ChildId=account.aws_account_id))["Parents"][0]["Id"]
        await organizations.move_account(
            AccountId=account.aws_account_id, SourceParentId=parent, DestinationParentId=tenancy.aws_root_id
        )
    setup_id = await world.reassure(hardened)
    async with world.holding(setup_id) as run:
        failing = [name for name in MEMBER_STAGES if writes(await world.assure(run, name))]
    assert failing == ["organizational_unit", *HARDENING]
    await world.complete(setup_id)


async def test_a_password_policy_that_is_stronger_stays(world: World, hardened: UUID) -> None:
    account = await world.account(hardened)
    assert account.aws_account_id is not None
    credentials = await world.aws.assume(account.aws_account_id, "us-east-1")
    async with world.aws.client("iam", "us-east-1", credentials) as iam:
        await iam.update_account_password_policy(MinimumPasswordLength=20, MaxPasswordAge=90)
        await world.complete(await world.reassure(hardened))
        policy = (await iam.get_account_password_policy())["PasswordPolicy"]
    assert (policy["MinimumPasswordLength"], policy["MaxPasswordAge"], policy["RequireSymbols"]) == (20, 90, True)
    assert policy["PasswordReusePrevention"] == 24


async def test_the_support_role_trusts_its_own_account_alone(world: World, hardened: UUID) -> None:
    account = await world.account(hardened)
    assert account.aws_account_id is not None
    credentials = await world.aws.assume(account.aws_account_id, "us-east-1")
    async with world.aws.client("iam", "us-east-1", credentials) as iam:
        document = (await iam.get_role(RoleName=SUPPORT_ROLE))["Role"]["AssumeRolePolicyDocument"]
    assert f'"Principal": {{"AWS": "arn:aws:iam::{account.aws_account_id}:root"}}' in json.dumps(document)


async def test_a_renamed_account_gets_its_new_name_and_alias(world: World, hardened: UUID) -> None:
    setup_id = await world.reassure(hardened, name="Hardened, renamed", alias="hardened-renamed")
    async with world.holding(setup_id) as run:
        await world.assure(run, "account_details")
        async with run.member("iam") as iam:
            assert (await iam.list_account_aliases())["AccountAliases"] == ["hardened-renamed"]
        async with run.member("account") as client:
            assert (await client.get_account_information())["AccountName"] == "Hardened, renamed"
    await world.complete(setup_id)


async def test_an_alias_that_another_account_has_gets_a_suffix_and_is_kept_so(
    world: World, team: UUID, hardened: UUID
) -> None:
    """Aliases are unique over all of AWS: the management account, which no stage gives one, stands for a stranger."""
    async with world.aws.client("iam", "us-east-1") as stranger:
        await stranger.create_account_alias(AccountAlias="taken-by-a-stranger")
    setup_id = await world.reassure(hardened, alias="taken-by-a-stranger")
    async with world.holding(setup_id) as run:
        await world.assure(run, "account_details")
        kept = (await world.account(hardened)).alias
        assert kept == f"taken-by-a-stranger-{hardened.hex[-6:]}"
        async with run.member("iam") as iam:
            assert (await iam.list_account_aliases())["AccountAliases"] == [kept]
        assert writes(await world.assure(run, "account_details")) == []
        # As if the worker had died between AWS's answer and its own write.
        await world.change(hardened, alias="taken-by-a-stranger")
        await world.assure(run, "account_details")
    await world.complete(setup_id)
    assert (await world.events(hardened))[-1].account["alias"] == kept


async def test_an_account_changes_its_type_by_moving(world: World, hardened: UUID) -> None:
    """The other type has no unit in AWS yet, but somebody made one by its name."""
    other = await world.account_type("Made by hand")
    tenancy = await world.tenancy()
    assert tenancy.workloads_ou_id is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        answer = await organizations.create_organizational_unit(ParentId=tenancy.workloads_ou_id, Name="Made by hand")
        made = answer["OrganizationalUnit"]["Id"]
        before = (await world.account(hardened)).account_type_id
        setup_id = await world.reassure(hardened, account_type_id=other)
        async with world.holding(setup_id) as run:
            await world.assure(run, "organizational_unit")
            parents = await organizations.list_parents(ChildId=run.aws_account_id)
            assert parents["Parents"][0]["Id"] == made
    assert (await world.type_of(hardened)).organizational_unit_id == made
    await world.complete(setup_id)
    await world.complete(await world.reassure(hardened, account_type_id=before))


async def test_a_unit_that_somebody_deleted_is_made_anew(world: World) -> None:
    type_id = await world.account_type("Deleted in AWS")
    _, setup_id = await world.request("Of a deleted unit", type_id)
    async with world.holding(setup_id) as run:
        await world.assure(run, "create_account")
        await world.assure(run, "organizational_unit")
        gone = (await world.type_of(run.account.id)).organizational_unit_id
        await delete_unit(world, run, gone)
        with pytest.raises(StageStopped, match="UNIT_GONE"):
            await world.assure(run, "organizational_unit")
        await world.assure(run, "organizational_unit")
    assert (await world.type_of(run.account.id)).organizational_unit_id not in (None, gone)
    await world.complete(setup_id)


async def test_so_is_the_unit_that_holds_those_of_the_types(world: World) -> None:
    tenancy = await world.tenancy()
    type_id = await world.account_type("Below a deleted unit")
    _, setup_id = await world.request("Below a deleted unit", type_id)
    await world.change_tenancy(workloads_ou_id="ou-gone-gonegone")
    async with world.holding(setup_id) as run:
        await world.assure(run, "create_account")
        with pytest.raises(StageStopped, match="UNIT_GONE"):
            await world.assure(run, "organizational_unit")
        await world.assure(run, "organizational_unit")
    assert (await world.tenancy()).workloads_ou_id == tenancy.workloads_ou_id
    await world.complete(setup_id)


async def test_so_is_the_unit_of_the_foundation(world: World) -> None:
    security = (await world.account_in_role(AccountRole.SECURITY)).id
    kept = (await world.type_of(security)).organizational_unit_id
    await world.change_tenancy(foundation_ou_id="ou-gone-gonegone")
    of_security = update(AccountType).where(AccountType.organizational_unit_id == kept)
    async with transaction(world.engine) as session:
        await session.execute(of_security.values(organizational_unit_id="ou-gone-gonegone"))
    setup_id = await world.reassure(security)
    async with world.holding(setup_id) as run:
        with pytest.raises(StageStopped, match="UNIT_GONE"):
            await world.assure(run, "organizational_unit")
        await world.assure(run, "organizational_unit")
    assert (await world.type_of(security)).organizational_unit_id == kept
    assert (await world.tenancy()).foundation_ou_id == kept
    await world.complete(setup_id)


async def delete_unit(world: World, run: Run, unit_id: str | None) -> None:
    """Move the account to the root and delete its unit, as AWS has it that only an empty one can be deleted."""
    assert unit_id is not None
    assert run.tenancy.aws_root_id is not None
    number = (await world.account(run.account.id)).aws_account_id
    assert number is not None
    async with world.aws.client("organizations", "us-east-1") as organizations:
        await organizations.move_account(
            AccountId=number, SourceParentId=unit_id, DestinationParentId=run.tenancy.aws_root_id
        )
        await organizations.delete_organizational_unit(OrganizationalUnitId=unit_id)


async def test_access_that_is_denied_in_a_new_account_is_waited_for(world: World, team: UUID) -> None:
    account_id, setup_id = await world.request("Not assumable yet", team)
    async with world.holding(setup_id) as run:
        await world.assure(run, "create_account")
        await world.assure(run, "organizational_unit")
    number = (await world.account(account_id)).aws_account_id
    assert number is not None
    world.proxy.fail("AssumeRole", *(refuse("AccessDenied", 403) for _ in range(2)))
    assert (await world.run(setup_id)).status is SetupStatus.WAITING
    assert (await world.stages(setup_id))["assume_role"].error_code == "AccessDenied"
    await world.make_due(setup_id)
    await world.complete(setup_id)


async def test_every_permission_is_declared_and_used(world: World, hardened: UUID, team: UUID) -> None:
    """Over a bootstrap, an account, its changes, a move, a lost answer and access: what was called is what is declared.

    Tests that ran before this one have recorded most of it; what is missing is done here, so that it passes alone.
    """
    policies, protected = Policies(world), await world.account_type("Protected")
    await world.keep_unit(protected)
    await policies.roll_out(await policies.create(Target(account_type_id=protected)))
    setup_id = await world.reassure(hardened, account_type_id=protected)
    async with world.holding(setup_id) as run:
        await world.assure(run, "organizational_unit")
    await world.complete(setup_id)
    setup_id = await world.reassure(hardened, name="Hardened, renamed twice", account_type_id=team)
    await world.forget_unit(team)
    async with world.holding(setup_id) as run:
        await world.assure(run, "account_details")
        await world.assure(run, "organizational_unit")
    await world.complete(setup_id)
    _, setup_id = await world.request("Lost for the record", team)
    world.proxy.fail("CreateAccount", lose_answer)
    world.proxy.fail("ListCreateAccountStatus", answer({"CreateAccountStatuses": []}))
    async with world.holding(setup_id) as run:
        with pytest.raises(StageStopped):
            await world.assure(run, "create_account")
        await world.assure(run, "create_account")
    await use_every_call(world)
    await tags.use_every_call(world, hardened)
    for stage in STAGES:
        assert world.used[stage.name] == set(stage.permissions) - set(stage.implied_permissions), stage.name
