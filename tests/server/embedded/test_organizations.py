from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.core.utils import utcnow

from server.embedded import embedded
from server.embedded.simulator.organizations import CreateRequest
from tests.server.embedded.aws import Aws


def code(refused: pytest.ExceptionInfo[ClientError]) -> str:
    return str(refused.value.response["Error"]["Code"])


async def status_after(organizations: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The state of a creation once AWS has told its end."""
    status: dict[str, Any] = request["CreateAccountStatus"]
    while status["State"] == "IN_PROGRESS":
        answer = await organizations.describe_create_account_status(CreateAccountRequestId=status["Id"])
        status = answer["CreateAccountStatus"]
    return status


async def test_an_account_takes_a_poll_to_be_made(aws: Aws) -> None:
    async with aws.client("organizations") as organizations:
        request = (await organizations.create_account(AccountName="Slow", Email="slow@example.com"))[
            "CreateAccountStatus"
        ]
        states = [
            (await organizations.describe_create_account_status(CreateAccountRequestId=request["Id"]))[
                "CreateAccountStatus"
            ]["State"]
            for _ in range(3)
        ]
    assert request["State"] == "IN_PROGRESS"
    assert states == ["IN_PROGRESS", "SUCCEEDED", "SUCCEEDED"]


@pytest.mark.parametrize(("age", "state"), [(29, "IN_PROGRESS"), (31, "SUCCEEDED")])
def test_a_creation_can_take_seconds_however_often_it_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, age: int, state: str
) -> None:
    monkeypatch.setattr("server.embedded.simulator.organizations.CREATE_SECONDS", 30)
    requested = utcnow() - timedelta(seconds=age)
    request = CreateRequest("car-1", "Slow", requested, polls_left=0, account_id="111111111111")
    for _ in range(3):
        request.pass_time()
        request.poll()
    assert request.state == state


@pytest.mark.parametrize("email", ["MEMBER@example.com", "Master@Example.com"])
async def test_an_email_is_used_once_whatever_its_case(aws: Aws, member: Aws, email: str) -> None:
    async with aws.client("organizations") as organizations:
        request = await organizations.create_account(AccountName="Again", Email=email)
        status = await status_after(organizations, request)
    assert (status["State"], status["FailureReason"]) == ("FAILED", "EMAIL_ALREADY_EXISTS")
    assert "AccountId" not in status


async def test_a_malformed_email_fails(aws: Aws) -> None:
    async with aws.client("organizations") as organizations:
        request = await organizations.create_account(AccountName="Bad", Email="not-an-address")
        status = await status_after(organizations, request)
    assert status["FailureReason"] == "INVALID_EMAIL"


async def test_a_long_name_is_refused(aws: Aws) -> None:
    async with aws.client("organizations") as organizations:
        with pytest.raises(ClientError) as refused:
            await organizations.create_account(AccountName="n" * 51, Email="long@example.com")
    assert code(refused) == "InvalidInputException"


async def test_an_unknown_request_is_refused(aws: Aws) -> None:
    async with aws.client("organizations") as organizations:
        with pytest.raises(ClientError) as refused:
            await organizations.describe_create_account_status(CreateAccountRequestId="car-00000000")
    assert code(refused) == "CreateAccountStatusNotFoundException"


async def test_requests_are_listed_over_pages(aws: Aws, member: Aws) -> None:
    async with aws.client("organizations") as organizations:
        for number in range(3):
            await aws.create_account(f"Page {number}", f"page-{number}@example.com")
        paginator = organizations.get_paginator("list_create_account_status")
        pages = paginator.paginate(States=["SUCCEEDED"], PaginationConfig={"PageSize": 2})
        listed = [status["Id"] async for page in pages for status in page["CreateAccountStatuses"]]
    assert len(listed) == len(set(listed)) >= 4


async def test_five_creations_run_at_once_and_the_account_limit_holds(
    data_dir: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEHOLD_SIMULATOR_ACCOUNT_LIMIT", "5")
    async with (
        embedded(data_dir, services={"simulator"}, fsync=False) as services,
        Aws(services.aws_endpoint).client("organizations", attempts=1) as organizations,
    ):
        await organizations.create_organization(FeatureSet="ALL")
        requests = [
            await organizations.create_account(AccountName=f"A{number}", Email=f"a{number}@example.com")
            for number in range(5)
        ]
        with pytest.raises(ClientError) as refused:
            await organizations.create_account(AccountName="A5", Email="a5@example.com")
        statuses = [await status_after(organizations, request) for request in requests]
    assert code(refused) == "TooManyRequestsException"
    # The management account counts.
    assert [status["State"] for status in statuses] == ["SUCCEEDED"] * 4 + ["FAILED"]
    assert statuses[-1]["FailureReason"] == "ACCOUNT_LIMIT_EXCEEDED"


async def test_organizational_units(aws: Aws) -> None:
    async with aws.client("organizations") as organizations:
        root = (await organizations.list_roots())["Roots"][0]["Id"]
        unit = await organizations.create_organizational_unit(ParentId=root, Name="Units")
        parent = unit["OrganizationalUnit"]["Id"]
        # The same name is free again below another parent.
        await organizations.create_organizational_unit(ParentId=parent, Name="Units")
        with pytest.raises(ClientError) as duplicate:
            await organizations.create_organizational_unit(ParentId=root, Name="Units")
        with pytest.raises(ClientError) as orphan:
            await organizations.create_organizational_unit(ParentId="ou-0000-00000000", Name="Orphan")
        children = await organizations.list_organizational_units_for_parent(ParentId=parent)
    assert code(duplicate) == "DuplicateOrganizationalUnitException"
    assert code(orphan) == "ParentNotFoundException"
    assert [child["Name"] for child in children["OrganizationalUnits"]] == ["Units"]


async def test_a_unit_is_renamed_and_deleted_when_it_is_empty(aws: Aws) -> None:
    account = await aws.create_account("Of a unit", "of-a-unit@example.com")
    async with aws.client("organizations", attempts=1) as organizations:
        root = (await organizations.list_roots())["Roots"][0]["Id"]

        async def make(parent: str, name: str) -> str:
            made = await organizations.create_organizational_unit(ParentId=parent, Name=name)
            return str(made["OrganizationalUnit"]["Id"])

        unit, other = await make(root, "Renamed"), await make(root, "Keeps its name")
        with pytest.raises(ClientError) as taken:
            await organizations.update_organizational_unit(OrganizationalUnitId=unit, Name="Keeps its name")
        for name in ("Renamed", "Renamed indeed"):
            await organizations.update_organizational_unit(OrganizationalUnitId=unit, Name=name)
        described = await organizations.describe_organizational_unit(OrganizationalUnitId=unit)
        assert described["OrganizationalUnit"]["Name"] == "Renamed indeed"
        refusals = [code(taken)]

        await organizations.move_account(AccountId=account, SourceParentId=root, DestinationParentId=unit)
        child = await make(other, "Below")
        for full in (unit, other):
            with pytest.raises(ClientError) as not_empty:
                await organizations.delete_organizational_unit(OrganizationalUnitId=full)
            refusals.append(code(not_empty))
        await organizations.move_account(AccountId=account, SourceParentId=unit, DestinationParentId=root)
        for empty in (child, unit, other):
            await organizations.delete_organizational_unit(OrganizationalUnitId=empty)
        for gone in (
            organizations.delete_organizational_unit(OrganizationalUnitId=unit),
            organizations.update_organizational_unit(OrganizationalUnitId=unit, Name="Gone"),
            organizations.describe_organizational_unit(OrganizationalUnitId=unit),
        ):
            with pytest.raises(ClientError) as missing:
                await gone
            refusals.append(code(missing))
    assert refusals == [
        "DuplicateOrganizationalUnitException",
        *["OrganizationalUnitNotEmptyException"] * 2,
        *["OrganizationalUnitNotFoundException"] * 3,
    ]


async def test_an_account_moves_from_where_it_is(aws: Aws) -> None:
    account = await aws.create_account("Mover", "mover@example.com")
    async with aws.client("organizations") as organizations:
        root = (await organizations.list_roots())["Roots"][0]["Id"]
        unit = await organizations.create_organizational_unit(ParentId=root, Name="Destination")
        destination = unit["OrganizationalUnit"]["Id"]
        other = await organizations.create_organizational_unit(ParentId=root, Name="Other")
        move = {"AccountId": account, "DestinationParentId": destination}

        with pytest.raises(ClientError) as elsewhere:
            await organizations.move_account(**move, SourceParentId=other["OrganizationalUnit"]["Id"])
        with pytest.raises(ClientError) as nowhere:
            await organizations.move_account(**move, SourceParentId="ou-0000-00000000")
        await organizations.move_account(**move, SourceParentId=root)
        with pytest.raises(ClientError) as again:
            await organizations.move_account(**move, SourceParentId=root)

        parents = (await organizations.list_parents(ChildId=account))["Parents"]
        members = (await organizations.list_accounts_for_parent(ParentId=destination))["Accounts"]
    assert code(elsewhere) == "AccountNotFoundException"
    assert code(nowhere) == "SourceParentNotFoundException"
    assert code(again) == "DuplicateAccountException"
    assert parents == [{"Id": destination, "Type": "ORGANIZATIONAL_UNIT"}]
    assert [member["Id"] for member in members] == [account]


async def test_a_member_sees_its_organization_and_no_more(aws: Aws, member: Aws) -> None:
    async with member.client("organizations") as organizations:
        organization = (await organizations.describe_organization())["Organization"]
        with pytest.raises(ClientError) as refused:
            await organizations.list_accounts()
    assert organization["MasterAccountId"] == aws.account
    assert code(refused) == "AccessDeniedException"
