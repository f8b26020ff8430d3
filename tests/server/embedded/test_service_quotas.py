"""Service Quotas in the simulator: the limits of AWS Organizations that hold there, listed in pages."""

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from server.embedded import embedded
from tests.server.embedded.aws import Aws
from tests.server.embedded.test_organizations import code


async def test_the_limits_of_organizations_are_listed_in_pages(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEHOLD_SIMULATOR_ACCOUNT_LIMIT", "7")
    async with (
        embedded(data_dir, services={"simulator"}, fsync=False) as services,
        Aws(services.aws_endpoint).client("service-quotas") as quotas,
    ):
        asked = {"ServiceCode": "organizations", "PaginationConfig": {"PageSize": 2}}
        pages = quotas.get_paginator("list_service_quotas").paginate(**asked)
        found = [page["Quotas"] async for page in pages]
    assert [len(page) for page in found] == [2, 1]
    assert {each["QuotaName"]: each["Value"] for page in found for each in page} == {
        "Default maximum number of accounts": 7,
        "Organizational units in an organization": 2_000,
        "Service control policies in an organization": 10_000,
    }


@pytest.mark.parametrize(("region", "service"), [("eu-west-1", "organizations"), ("us-east-1", "nothing")])
async def test_they_are_told_in_one_region_alone(aws: Aws, region: str, service: str) -> None:
    async with aws.client("service-quotas", region) as quotas:
        with pytest.raises(ClientError) as refused:
            await quotas.list_service_quotas(ServiceCode=service)
    assert code(refused) == "NoSuchResourceException"
