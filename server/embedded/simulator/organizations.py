"""Organizations: accounts that take time to be made and may fail, refusals that moto lacks, paging that ends."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from moto.core.utils import unix_time, utcnow
from moto.organizations import urls, utils
from moto.organizations.exceptions import (
    AccountNotFoundException,
    AWSOrganizationsNotInUseException,
    DuplicateOrganizationalUnitException,
    InvalidInputException,
)
from moto.organizations.models import (
    FakeAccount,
    FakeOrganizationalUnit,
    OrganizationsBackend,
    organizations_backends,
)
from moto.organizations.responses import OrganizationsResponse

from server.embedded.simulator.inputs import page_start, whole_number
from server.embedded.simulator.refusals import Refusal
from server.embedded.simulator.registry import MANAGEMENT_ACCOUNT
from server.embedded.simulator.service_control_policies import ServiceControlPolicies

ACCOUNT_NAME = re.compile(r"[\u0020-\u007e]{1,50}")
EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
CONCURRENT_REQUESTS = 5
# AWS finishes a request whether or not anybody asks about it.
REQUEST_SECONDS = 15
LIST_PAGE = 20


# The real default is 10, raised on request.
ACCOUNT_LIMIT = whole_number("FREEHOLD_SIMULATOR_ACCOUNT_LIMIT", 1000)
# How often DescribeCreateAccountStatus answers IN_PROGRESS before it answers how the request ended.
CREATE_POLLS = whole_number("FREEHOLD_SIMULATOR_CREATE_POLLS", 1)
# How many seconds a request takes, however often it is asked about; AWS takes from tens of seconds to minutes.
CREATE_SECONDS = whole_number("FREEHOLD_SIMULATOR_CREATE_SECONDS", 0)


@dataclass(slots=True)
class CreateRequest:
    """A CreateAccount request. How it ends is settled at once and told later; exactly one of the last two is set."""

    id: str
    name: str
    requested: datetime
    polls_left: int
    account_id: str | None = None
    failure: str | None = None
    completed: datetime | None = None

    def poll(self) -> None:
        if self.completed is None and not CREATE_SECONDS:
            if self.polls_left == 0:
                self.completed = utcnow()
            self.polls_left -= 1

    def pass_time(self) -> None:
        longest = timedelta(seconds=CREATE_SECONDS or REQUEST_SECONDS)
        if self.completed is None and utcnow() - self.requested > longest:
            self.completed = utcnow()

    @property
    def state(self) -> str:
        if self.completed is None:
            return "IN_PROGRESS"
        return "FAILED" if self.failure else "SUCCEEDED"

    def describe(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "Id": self.id,
            "AccountName": self.name,
            "State": self.state,
            "RequestedTimestamp": unix_time(self.requested),
        }
        if self.completed is not None:
            told["CompletedTimestamp"] = unix_time(self.completed)
            told |= {"FailureReason": self.failure} if self.failure else {"AccountId": self.account_id}
        return told


class Organizations(ServiceControlPolicies):
    _url_module = urls  # moto would look for it beside the class

    def _reset(self) -> None:
        super()._reset()
        self.requests: dict[str, CreateRequest] = {}

    # Accounts

    def create_account(self, **arguments: Any) -> dict[str, Any]:
        if self.org is None:
            raise AWSOrganizationsNotInUseException
        if not ACCOUNT_NAME.fullmatch(arguments["AccountName"]):
            raise InvalidInputException(
                "You provided a value for AccountName that is not 1 to 50 printable characters."
            )
        if len(self._open_requests()) >= CONCURRENT_REQUESTS:
            raise Refusal(
                "TooManyRequestsException",
                f"You can have at most {CONCURRENT_REQUESTS} account creations in progress. Try again later.",
            )
        request = CreateRequest(
            id=utils.make_random_create_account_status_id(),
            name=arguments["AccountName"],
            requested=utcnow(),
            polls_left=CREATE_POLLS,
            failure=self._reason_to_fail(arguments["Email"]),
        )
        if request.failure is None:
            # In ListAccounts from here on, as in AWS, where an account shows before its request has succeeded.
            super().create_account(**arguments)
            request.account_id = self.accounts[-1].id
            self.accounts[-1].create_account_status_id = request.id
        self.requests[request.id] = request
        return {"CreateAccountStatus": request.describe()}

    def _reason_to_fail(self, email: str) -> str | None:
        if not EMAIL.fullmatch(email):
            return "INVALID_EMAIL"
        if any(account.email.lower() == email.lower() for account in self.accounts):
            return "EMAIL_ALREADY_EXISTS"
        if len(self.accounts) >= ACCOUNT_LIMIT:
            return "ACCOUNT_LIMIT_EXCEEDED"
        return None

    def _open_requests(self) -> list[CreateRequest]:
        for request in self.requests.values():
            request.pass_time()
        return [request for request in self.requests.values() if request.completed is None]

    def describe_create_account_status(self, **arguments: Any) -> dict[str, Any]:
        request = self.requests.get(arguments["CreateAccountRequestId"])
        if request is None:
            raise Refusal(
                "CreateAccountStatusNotFoundException",
                "We can't find a create account request with the CreateAccountRequestId that you specified.",
            )
        request.pass_time()
        request.poll()
        return {"CreateAccountStatus": request.describe()}

    def list_create_account_status(self, **arguments: Any) -> dict[str, Any]:
        self._open_requests()
        states = arguments.get("States") or ["IN_PROGRESS", "SUCCEEDED", "FAILED"]
        told = [request.describe() for request in self.requests.values() if request.state in states]
        start, count = page_start(arguments.get("NextToken")), arguments.get("MaxResults") or LIST_PAGE
        page: dict[str, Any] = {"CreateAccountStatuses": told[start : start + count]}
        if start + count < len(told):
            page["NextToken"] = str(start + count)
        return page

    def move_account(self, **arguments: Any) -> None:
        account = self.get_account_by_id(arguments["AccountId"])
        source, destination = arguments["SourceParentId"], arguments["DestinationParentId"]
        if not self._has_parent(source):
            raise Refusal(
                "SourceParentNotFoundException",
                "We can't find a source root or OU with the ParentId that you specified.",
            )
        if not self._has_parent(destination):
            raise Refusal(
                "DestinationParentNotFoundException",
                "We can't find the destination container (a root or OU) with the ParentId that you specified.",
            )
        if account.parent_id == destination:
            raise Refusal("DuplicateAccountException", "That account is already present in the specified destination.")
        if account.parent_id != source:
            raise AccountNotFoundException
        account.parent_id = destination

    # Organizational units

    def create_organizational_unit(self, **arguments: Any) -> dict[str, Any]:
        self.validate_parent_id(arguments["ParentId"])
        self._refuse_duplicate(arguments["ParentId"], arguments["Name"])
        return super().create_organizational_unit(**arguments)

    def update_organizational_unit(self, **arguments: Any) -> dict[str, Any]:
        unit = self._unit(arguments["OrganizationalUnitId"])
        if unit.name != arguments["Name"]:
            self._refuse_duplicate(cast("str", unit.parent_id), arguments["Name"])
            unit.name = arguments["Name"]
        return unit.describe()

    def delete_organizational_unit(self, **arguments: Any) -> None:
        unit = self._unit(arguments["OrganizationalUnitId"])
        inside: list[Any] = [*self.accounts, *self.ou]
        if any(each.parent_id == unit.id for each in inside):
            raise Refusal(
                "OrganizationalUnitNotEmptyException",
                "The specified OU is not empty. Move all accounts to another root or to other OUs, remove all child "
                "OUs, and try the operation again.",
            )
        super().delete_organizational_unit(**arguments)

    def describe_organizational_unit(self, **arguments: Any) -> dict[str, Any]:
        return self._unit(arguments["OrganizationalUnitId"]).describe()

    def _unit(self, ou_id: str) -> FakeOrganizationalUnit:
        found = next((unit for unit in self.ou if unit.id == ou_id), None)
        if found is None:
            raise Refusal("OrganizationalUnitNotFoundException", "You specified an OU that doesn't exist.")
        return found

    def _refuse_duplicate(self, parent_id: str, name: str) -> None:
        if any(unit.parent_id == parent_id and unit.name == name for unit in self.ou):
            raise DuplicateOrganizationalUnitException

    def _has_parent(self, parent_id: str) -> bool:
        return any(unit.id == parent_id for unit in self.ou)


def organization_of(account: str) -> Organizations | None:
    """The organization that an account belongs to, as its management account or as a member."""
    management, partition = organizations_backends.master_accounts.get(account, (account, "aws"))
    if management != MANAGEMENT_ACCOUNT and account not in organizations_backends.master_accounts:
        return None
    backend = cast("Organizations", organizations_backends[management][partition])
    return backend if backend.org is not None else None


def find_account(account: str) -> FakeAccount | None:
    organization = organization_of(account)
    if organization is None:
        return None
    return next((each for each in organization.accounts if each.id == account), None)


def is_open(account: str) -> bool:
    """Whether the account exists and has not been closed; the management account always does."""
    if account == MANAGEMENT_ACCOUNT:
        return True
    found = find_account(account)
    return found is not None and found.status == "ACTIVE"


def remember_members(backend: OrganizationsBackend) -> None:
    """moto's list of who is a member of what lies outside its backends: derive it from one that was restored."""
    for account in backend.accounts:
        if account.id != backend.account_id:
            organizations_backends.master_accounts[account.id] = (backend.account_id, backend.region_name)


class OrganizationsAnswers(OrganizationsResponse):
    # What AWS lets a member ask about the organization that it is in.
    OPEN_TO_MEMBERS = frozenset({"DescribeOrganization"})

    @property
    def organizations_backend(self) -> OrganizationsBackend:
        is_member = self.current_account in organizations_backends.master_accounts
        if is_member and self._get_action() not in self.OPEN_TO_MEMBERS:
            raise Refusal("AccessDeniedException", "You don't have permissions to access this resource.")
        return super().organizations_backend


def install() -> None:
    organizations_backends.backend = Organizations
    urls.url_paths["{0}/$"] = OrganizationsAnswers.dispatch
