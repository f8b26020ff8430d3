"""Account Management: names, contacts and Regions, of the caller's account or of a member of its organization."""

from typing import Any

from moto.account import urls
from moto.account.models import AccountBackend, account_backends
from moto.account.responses import AccountResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.organizations.models import organizations_backends

from server.embedded.simulator.organizations import find_account
from server.embedded.simulator.refusals import Refusal

DEFAULT_REGIONS = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1"),
    *("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3"),
    *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
)
OPT_IN_REGIONS = ("af-south-1", "ap-east-1", "ap-southeast-3", "eu-south-1", "me-central-1", "me-south-1")
CONTACT_FIELDS = ("FullName", "AddressLine1", "City", "PostalCode", "CountryCode", "PhoneNumber")
LIST_PAGE = 50


class Account(AccountBackend):
    _url_module = urls  # moto would look for it beside the class

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.contact_information: dict[str, str] | None = None
        self.opted_in: set[str] = set()

    def region_status(self, region: str) -> str:
        if region in DEFAULT_REGIONS:
            return "ENABLED_BY_DEFAULT"
        return "ENABLED" if region in self.opted_in else "DISABLED"


class AccountAnswers(AccountResponse):
    def _get_account_id(self) -> str:
        named = self._get_param("AccountId")
        if named is None:
            return self.current_account
        # AWS: only the management account may name an account, and never itself.
        management, _ = organizations_backends.master_accounts.get(named, (None, None))
        if management != self.current_account:
            raise Refusal(
                "AccessDeniedException",
                f"User: arn:aws:iam::{self.current_account}:root is not authorized to perform: "
                f"account:{self._get_action()} on account {named}",
            )
        return str(named)

    @property
    def account(self) -> Account:
        backend = account_backends[self._get_account_id()]["aws"]
        assert isinstance(backend, Account)
        return backend

    def put_account_name(self) -> ActionResult:
        member = find_account(self._get_account_id())
        if member is not None:
            member.name = self._get_param("AccountName")
        return EmptyResult()

    def get_account_information(self) -> ActionResult:
        account_id = self._get_account_id()
        member = find_account(account_id)
        if member is None:
            return ActionResult({"AccountId": account_id})
        return ActionResult(
            {"AccountId": account_id, "AccountName": member.name, "AccountCreatedDate": member.create_time}
        )

    def get_primary_email(self) -> ActionResult:
        member = find_account(self._get_account_id())
        if member is None:
            raise Refusal("ResourceNotFoundException", "The account is not in an organization.")
        return ActionResult({"PrimaryEmail": member.email})

    def put_contact_information(self) -> ActionResult:
        information: dict[str, str] = self._get_param("ContactInformation") or {}
        if missing := [name for name in CONTACT_FIELDS if not information.get(name)]:
            raise Refusal("ValidationException", f"{', '.join(missing)} must not be empty.")
        self.account.contact_information = information
        return EmptyResult()

    def get_contact_information(self) -> ActionResult:
        information = self.account.contact_information
        if information is None:
            raise Refusal("ResourceNotFoundException", "No contact information found for the specified account.")
        return ActionResult({"ContactInformation": information})

    def list_regions(self) -> ActionResult:
        account = self.account
        wanted = self._get_param("RegionOptStatusContains")
        regions = [
            {"RegionName": region, "RegionOptStatus": account.region_status(region)}
            for region in sorted(DEFAULT_REGIONS + OPT_IN_REGIONS)
            if not wanted or account.region_status(region) in wanted
        ]
        start, count = int(self._get_param("NextToken") or 0), self._get_param("MaxResults") or LIST_PAGE
        page: dict[str, Any] = {"Regions": regions[start : start + count]}
        if start + count < len(regions):
            page["NextToken"] = str(start + count)
        return ActionResult(page)

    def get_region_opt_status(self) -> ActionResult:
        region = self._region_named()
        return ActionResult({"RegionName": region, "RegionOptStatus": self.account.region_status(region)})

    def enable_region(self) -> ActionResult:
        self.account.opted_in.add(self._region_named())
        return EmptyResult()

    def disable_region(self) -> ActionResult:
        region = self._region_named()
        if region in DEFAULT_REGIONS:
            raise Refusal("ValidationException", f"The Region {region} cannot be disabled.")
        self.account.opted_in.discard(region)
        return EmptyResult()

    def _region_named(self) -> str:
        region: str = self._get_param("RegionName")
        if region not in DEFAULT_REGIONS + OPT_IN_REGIONS:
            raise Refusal("ValidationException", f"There is no Region {region}.")
        return region


PATHS = (
    *("putAlternateContact", "getAlternateContact", "deleteAlternateContact", "putContactInformation"),
    *("getContactInformation", "putAccountName", "getAccountInformation", "getPrimaryEmail", "listRegions"),
    *("getRegionOptStatus", "enableRegion", "disableRegion"),
)


def install() -> None:
    account_backends.backend = Account
    urls.url_paths.clear()
    urls.url_paths.update({f"{{0}}/{path}$": AccountAnswers.dispatch for path in PATHS})
