"""Service Quotas: what it tells the management account of AWS Organizations, with the limits that hold here.

The names are AWS's; its codes "might change over time due to updates" (User Guide of AWS Organizations, "Quotas and
service limits for AWS Organizations"). What is attached to a target, and how long a policy is, it does not tell.
"""

from typing import Any

from moto.core.responses import ActionResult
from moto.servicequotas import urls
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend, servicequotas_backends
from moto.servicequotas.responses import ServiceQuotasResponse

from server.embedded.simulator.inputs import page_start
from server.embedded.simulator.organizations import ACCOUNT_LIMIT

# AWS Organizations is in us-east-1 alone, whatever Region its accounts work in.
REGION = "us-east-1"
LIST_PAGE = 100
QUOTAS = (
    ("L-E619E033", "Default maximum number of accounts", ACCOUNT_LIMIT, True),
    ("L-0F0F51F4", "Organizational units in an organization", 2_000, False),
    ("L-29A0C5DF", "Service control policies in an organization", 10_000, False),
)


class ServiceQuotas(ServiceQuotasBackend):
    _url_module = urls  # moto would look for it beside the class

    def list_service_quotas(self, service_code: str) -> list[dict[str, Any]]:
        if service_code != "organizations" or self.region_name != REGION:
            raise NoSuchResource
        return [
            {
                "ServiceCode": service_code,
                "ServiceName": "AWS Organizations",
                "QuotaArn": f"arn:aws:servicequotas::{self.account_id}:{service_code}/{code}",
                "QuotaCode": code,
                "QuotaName": name,
                "Value": float(value),
                "Unit": "None",
                "Adjustable": adjustable,
                "GlobalQuota": True,
            }
            for code, name, value, adjustable in QUOTAS
        ]


class ServiceQuotasAnswers(ServiceQuotasResponse):
    def list_service_quotas(self) -> ActionResult:
        backend = self.backend
        assert isinstance(backend, ServiceQuotas)
        quotas = backend.list_service_quotas(self._get_param("ServiceCode"))
        start, count = page_start(self._get_param("NextToken")), self._get_param("MaxResults") or LIST_PAGE
        page: dict[str, Any] = {"Quotas": quotas[start : start + count]}
        if start + count < len(quotas):
            page["NextToken"] = str(start + count)
        return ActionResult(page)


def install() -> None:
    servicequotas_backends.backend = ServiceQuotas
    urls.url_paths["{0}/$"] = ServiceQuotasAnswers.dispatch
