"""Service control policies: what moto accepts and AWS refuses, and lists that come in pages.

Sources: the errors of each action in the API reference of AWS Organizations, "Quotas and service limits for AWS
Organizations" and "SCP syntax" in its User Guide.
"""

from collections.abc import Mapping
from typing import Any

from moto.organizations.exceptions import DuplicatePolicyException, TargetNotFoundException
from moto.organizations.models import FakePolicy, OrganizationsBackend
from moto.organizations.utils import DEFAULT_RCP_POLICY_ID, DEFAULT_SCP_POLICY_ID

from server.embedded.simulator.inputs import page_start, whole_number
from server.embedded.simulator.policy_language import is_policy
from server.embedded.simulator.refusals import Refusal

SCP = "SERVICE_CONTROL_POLICY"
# AWS's own, which it attaches wherever something new comes into being.
DEFAULTS = (DEFAULT_SCP_POLICY_ID, DEFAULT_RCP_POLICY_ID)
# Since May 2026; before it was half of both.
POLICIES_PER_TARGET = whole_number("FREEHOLD_SIMULATOR_POLICIES_PER_TARGET", 10)
POLICY_SIZE = whole_number("FREEHOLD_SIMULATOR_POLICY_SIZE", 10_240)
# API reference of CreatePolicy.
LONGEST = {"Name": 128, "Description": 512}
LIST_PAGE = 20


class ServiceControlPolicies(OrganizationsBackend):
    def create_policy(self, **arguments: Any) -> dict[str, Any]:
        _check_lengths(arguments)
        if arguments.get("Type") == SCP:
            _check_content(arguments["Content"])
        return super().create_policy(**arguments)

    def update_policy(self, **arguments: Any) -> dict[str, Any]:
        policy = self.get_policy_by_id(arguments["PolicyId"])
        if policy.aws_managed:
            raise Refusal("InvalidInputException", "You can't modify an AWS managed policy.", Reason="IMMUTABLE_POLICY")
        _check_lengths(arguments)
        name = arguments.get("Name", policy.name)
        if any(each.name == name for each in self.policies if each is not policy):
            raise DuplicatePolicyException
        if policy.type == SCP and "Content" in arguments:
            _check_content(arguments["Content"])
        return super().update_policy(**arguments)

    def delete_policy(self, **arguments: Any) -> None:
        if self.get_policy_by_id(arguments["PolicyId"]).attachments:
            raise Refusal(
                "PolicyInUseException",
                "The policy is attached to one or more entities. You must detach it from all roots, OUs, and accounts "
                "before performing this operation.",
            )
        super().delete_policy(**arguments)

    def attach_policy(self, **arguments: Any) -> None:
        policy, target = self.get_policy_by_id(arguments["PolicyId"]), self._target(arguments["TargetId"])
        attached = [each for each in target.attached_policies if each.type == policy.type]
        if policy in attached:
            raise Refusal("DuplicatePolicyAttachmentException", "The selected policy is already attached.")
        if policy.id not in DEFAULTS:
            self._check_enabled(policy)
            if policy.type == SCP and len(attached) >= POLICIES_PER_TARGET:
                raise Refusal(
                    "ConstraintViolationException",
                    "You have attached the maximum number of policies to the specified target.",
                    Reason="MAX_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED",
                )
        super().attach_policy(**arguments)

    def detach_policy(self, **arguments: str) -> None:
        policy, target = self.get_policy_by_id(arguments["PolicyId"]), self._target(arguments["TargetId"])
        if policy not in target.attached_policies:
            raise Refusal("PolicyNotAttachedException", "The policy isn't attached to the specified target.")
        if policy.type == SCP and sum(each.type == SCP for each in target.attached_policies) == 1:
            raise Refusal(
                "ConstraintViolationException",
                "You can't remove the last service control policy that is attached to the specified target.",
                Reason="MIN_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED",
            )
        super().detach_policy(**arguments)

    # moto's decorator would hide what a list is made of.
    def list_policies_for_target(  # type: ignore[override]
        self, target_id: str, policy_type: str, max_results: int | None = None, next_token: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        attached = [policy for policy in self._target(target_id).attached_policies if policy.type == policy_type]
        found, token = _page(attached, max_results, next_token)
        return [policy.describe()["Policy"]["PolicySummary"] for policy in found], token

    def list_targets_for_policy(self, **arguments: Any) -> dict[str, Any]:
        targets = super().list_targets_for_policy(**arguments)["Targets"]
        found, token = _page(targets, arguments.get("MaxResults"), arguments.get("NextToken"))
        return {"Targets": found, **({} if token is None else {"NextToken": token})}

    def delete_organizational_unit(self, **arguments: Any) -> None:
        unit = self.get_organizational_unit_by_id(arguments["OrganizationalUnitId"])
        super().delete_organizational_unit(**arguments)
        for policy in unit.attached_policies:
            policy.attachments.remove(unit)

    def _check_enabled(self, policy: FakePolicy) -> None:
        if policy.type not in {each["Type"] for each in self.ou[0].policy_types}:  # type: ignore[attr-defined]
            raise Refusal(
                "PolicyTypeNotEnabledException",
                "The specified policy type isn't currently enabled in this root.",
            )

    def _target(self, target_id: str) -> Any:
        targets: list[Any] = [*self.ou, *self.accounts]
        found = next((each for each in targets if each.id == target_id), None)
        if found is None:
            raise TargetNotFoundException
        return found


def _page(rows: list[Any], most: int | None, token: str | None) -> tuple[list[Any], str | None]:
    start = page_start(token)
    end = start + (most or LIST_PAGE)
    return rows[start:end], str(end) if end < len(rows) else None


def _check_content(content: str) -> None:
    if len(content) > POLICY_SIZE:
        raise Refusal(
            "ConstraintViolationException",
            "You've exceeded the maximum size of a policy document.",
            Reason="POLICY_CONTENT_LIMIT_EXCEEDED",
        )
    if not is_policy(content):
        raise Refusal("MalformedPolicyDocumentException", "The provided policy document is malformed.")


def _check_lengths(arguments: Mapping[str, Any]) -> None:
    # The SDK checks the shortest itself.
    for name, longest in LONGEST.items():
        if len(arguments.get(name) or "") > longest:
            raise Refusal(
                "InvalidInputException",
                f"You provided a value for {name} that is longer than {longest} characters.",
                Reason="MAX_LENGTH_EXCEEDED",
            )
