"""Reads from AWS what it allows the organization of a tenancy, as Service Quotas tells it to the management account."""

import asyncio
import logging
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.outages import Outage
from server.quotas.models import QuotaCode
from server.quotas.service import claim_readings, keep_reading
from server.tenancies.models import Tenancy
from server.tenancies.service import partition
from workers.aws.errors import explain
from workers.aws.session import Aws

PERMISSIONS = ("servicequotas:ListServiceQuotas",)
LOOK_SECONDS = 5.0
SERVICE = "organizations"
# AWS Organizations User Guide, "Quotas and service limits": a name stays while a code may change. The accounts have had
# two names.
NAMES: Mapping[str, QuotaCode] = {
    "default maximum number of accounts": QuotaCode.ACCOUNTS,
    "maximum number of accounts": QuotaCode.ACCOUNTS,
    "organizational units in an organization": QuotaCode.ORGANIZATIONAL_UNITS,
    "service control policies in an organization": QuotaCode.POLICIES,
}
# Where AWS Organizations is in each partition, and its quotas with it.
REGIONS = {"aws": "us-east-1", "aws-cn": "cn-northwest-1", "aws-us-gov": "us-gov-west-1"}

logger = logging.getLogger(__name__)


async def read_quotas_forever(engine: AsyncEngine, aws: Aws) -> None:
    """Read the limits that are due until cancelled; whatever goes wrong is logged, and tried again."""
    outage = Outage(logger, "No quotas are read")
    while True:
        try:
            await read_due_quotas(engine, aws)
        except Exception as error:
            # Whatever it was, it is logged there, and the loop must outlive it.
            await asyncio.sleep(outage.begin(error))
        else:
            outage.end()
            await asyncio.sleep(LOOK_SECONDS)


async def read_due_quotas(engine: AsyncEngine, aws: Aws) -> None:
    """Read the limits of every tenancy for which that is due, and that no other worker reads.

    What AWS refuses is logged: without its answer the limits of before, or the documented ones, stay.
    """
    async with transaction(engine) as session:
        tenancies = await claim_readings(session)
    for tenancy in tenancies:
        try:
            limits = await _limits(aws, tenancy)
        except Exception as error:
            refusal = explain(error, {"name": tenancy.name, "email": "", "retry": "wait for the next try"})
            if refusal is None:
                raise
            logger.warning("tenancy %r: its quotas were not read: %s", tenancy.name, refusal)
            continue
        async with transaction(engine) as session:
            await keep_reading(session, tenancy.id, limits)


async def _limits(aws: Aws, tenancy: Tenancy) -> dict[QuotaCode, int]:
    limits: dict[QuotaCode, int] = {}
    region = REGIONS.get(partition(tenancy.home_region), tenancy.home_region)
    async with aws.client("service-quotas", region) as quotas:
        async for page in quotas.get_paginator("list_service_quotas").paginate(ServiceCode=SERVICE):
            for quota in page["Quotas"]:
                code = NAMES.get(quota.get("QuotaName", "").lower())
                if code is not None and "Value" in quota:
                    limits[code] = int(quota["Value"])
    return limits
