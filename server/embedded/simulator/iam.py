"""IAM: aliases that are unique across AWS, and a handful of AWS's own policies instead of 1,400 in every account."""

import json
import re

from moto.core.responses import ActionResult, EmptyResult
from moto.iam import urls
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, IAMBackend, ManagedPolicy, iam_backends
from moto.iam.responses import IamResponse

from server.embedded.simulator.refusals import Refusal
from server.embedded.simulator.registry import registry

AWS_POLICIES = (
    *("AdministratorAccess", "AWSCloudShellFullAccess", "AWSSupportAccess", "AWS_ConfigRole", "Billing"),
    *("IAMUserChangePassword", "PowerUserAccess", "ReadOnlyAccess", "SecurityAudit", "SystemAdministrator"),
    *("ViewOnlyAccess",),
)
ALIAS = re.compile(r"[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]")
# An alias of this form would pass for an account's number.
ACCOUNT_NUMBER = re.compile(r"\d{12}")

_all_policies = json.loads(aws_managed_policies_data)
_policies = {name: _all_policies[name] for name in AWS_POLICIES}
del _all_policies
# One text for all accounts, in memory and on disk.
documents = {f"policy/{name}": json.dumps(data["Document"]) for name, data in _policies.items()}


class Iam(IAMBackend):
    _url_module = urls  # moto would look for it beside the class

    def _init_aws_policies(self) -> list[ManagedPolicy]:
        return [self._aws_policy(name) for name in AWS_POLICIES]

    def _aws_policy(self, name: str) -> AWSManagedPolicy:
        policy = AWSManagedPolicy.from_data(name, self.account_id, self.region_name, _policies[name])
        for version in policy.versions:
            version.document = documents[f"policy/{name}"]
        return policy

    def add_new_policies(self) -> None:
        """Give an account that an earlier version kept those of AWS's policies that it did not know."""
        known = {policy.name for policy in self.aws_managed_policies}
        added = [self._aws_policy(name) for name in AWS_POLICIES if name not in known]
        self.aws_managed_policies += added
        self.managed_policies.update({policy.arn: policy for policy in added})

    def create_account_alias(self, alias: str) -> None:
        if not ALIAS.fullmatch(alias) or ACCOUNT_NUMBER.fullmatch(alias):
            raise Refusal(
                "ValidationError",
                f"1 validation error detected: Value '{alias}' at 'accountAlias' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: ^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$",
            )
        owners = registry().alias_owners
        if alias in owners:
            raise Refusal("EntityAlreadyExists", f"The account alias {alias} already exists.")
        for previous in self.account_aliases:
            owners.pop(previous, None)
        owners[alias] = self.account_id
        super().create_account_alias(alias)

    def remove_account_alias(self, alias: str) -> None:
        """moto's own method is not told the alias."""
        if alias not in self.account_aliases:
            raise Refusal("NoSuchEntity", f"The account alias {alias} does not exist.")
        registry().alias_owners.pop(alias, None)
        super().delete_account_alias()


class IamAnswers(IamResponse):
    def delete_account_alias(self) -> ActionResult:
        backend = self.backend
        assert isinstance(backend, Iam)
        backend.remove_account_alias(self._get_param("AccountAlias"))
        return EmptyResult()


def install() -> None:
    iam_backends.backend = Iam
    urls.url_paths["{0}/$"] = IamAnswers.dispatch
