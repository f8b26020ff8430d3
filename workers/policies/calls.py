"""The calls to AWS Organizations of a rollout. Each returns what is to be written when AWS has answered."""

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from server.database import minified
from server.policies import drift, service
from server.policies.models import Policy
from workers import steps
from workers.assurance.protection import POLICY_TYPE
from workers.assurance.runner import backoff

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient

PERMISSIONS = (
    "organizations:AttachPolicy",
    "organizations:CreatePolicy",
    "organizations:DeletePolicy",
    "organizations:DetachPolicy",
    "organizations:ListPolicies",
    "organizations:ListTagsForResource",
    "organizations:TagResource",
    "organizations:UpdatePolicy",
)
# AWS asks for it on the way of CreatePolicy, which gives the policy its tag.
IMPLIED_PERMISSIONS = ("organizations:TagResource",)

# Whose policy it is in AWS: the proof after a call whose answer was lost, as a name may be anybody's.
TAG = "freehold:policy"

Keep: TypeAlias = steps.Keep[Policy]


@dataclass(frozen=True, slots=True)
class Found:
    """A policy in AWS, and whose it is; None for one that is not Freehold's."""

    id: str
    tag: str | None


async def create(policy: Policy, organizations: "OrganizationsClient") -> Keep:
    """Create the policy, or find the one that an earlier call has created."""
    assert policy.aws_name is not None, "written before the call"
    try:
        made = await organizations.create_policy(
            Name=policy.aws_name,
            Description=policy.description,
            Content=minified(policy.document),
            Type=POLICY_TYPE,
            Tags=[{"Key": TAG, "Value": tag(policy)}],
        )
    except organizations.exceptions.DuplicatePolicyException:
        found = await _holder(organizations, policy.aws_name)
        if found is not None and found.tag == tag(policy):
            return partial(service.keep_version, aws_policy_id=found.id, version=None)
        return _name_taken(policy, policy.aws_name, found)
    version = policy.version if policy.aws_name == policy.name else None
    return partial(service.keep_version, aws_policy_id=made["Policy"]["PolicySummary"]["Id"], version=version)


async def find(policy: Policy, organizations: "OrganizationsClient") -> Keep:
    """Find what a call has created whose answer was lost."""
    assert policy.aws_name is not None, "written before the call"
    found = await _holder(organizations, policy.aws_name)
    if found is not None and found.tag == tag(policy):
        return partial(service.keep_version, aws_policy_id=found.id, version=None)
    return service.keep_missing


async def update(policy: Policy, aws_policy_id: str, organizations: "OrganizationsClient") -> Keep:
    """Give the policy its name, description and document."""
    try:
        await organizations.update_policy(
            PolicyId=aws_policy_id, Name=policy.name, Description=policy.description, Content=minified(policy.document)
        )
    except organizations.exceptions.PolicyNotFoundException:
        return service.keep_missing
    except organizations.exceptions.DuplicatePolicyException:
        return _name_taken(policy, policy.name, await _holder(organizations, policy.name))
    return partial(service.keep_version, aws_policy_id=aws_policy_id, version=policy.version)


async def delete(aws_policy_id: str, organizations: "OrganizationsClient") -> Keep:
    """Delete the policy; that it is gone already is as good."""
    with contextlib.suppress(organizations.exceptions.PolicyNotFoundException):
        await organizations.delete_policy(PolicyId=aws_policy_id)
    return service.keep_deleted


async def attach(aws_policy_id: str, target: str, attachment_id: UUID, organizations: "OrganizationsClient") -> Keep:
    """Attach the policy; that it is attached already is as good."""
    try:
        await organizations.attach_policy(PolicyId=aws_policy_id, TargetId=target)
    except organizations.exceptions.PolicyNotFoundException:
        return service.keep_missing
    except organizations.exceptions.DuplicatePolicyAttachmentException:
        pass
    return partial(service.keep_attached, attachment_id=attachment_id)


async def detach(aws_policy_id: str, target: str, attachment_id: UUID, organizations: "OrganizationsClient") -> Keep:
    """Detach the policy; that it is not attached, or that either is gone, is as good."""
    await _detach(aws_policy_id, target, organizations)
    return partial(service.keep_detached, attachment_id=attachment_id)


async def detach_elsewhere(aws_policy_id: str, target: str, organizations: "OrganizationsClient") -> Keep:
    """Detach the policy from where somebody has attached it without Freehold."""
    await _detach(aws_policy_id, target, organizations)
    return partial(drift.keep_mended, aws_target_id=target)


async def _detach(aws_policy_id: str, target: str, organizations: "OrganizationsClient") -> None:
    gone = (
        organizations.exceptions.PolicyNotAttachedException,
        organizations.exceptions.TargetNotFoundException,
        organizations.exceptions.PolicyNotFoundException,
    )
    with contextlib.suppress(*gone):
        await organizations.detach_policy(PolicyId=aws_policy_id, TargetId=target)


def tag(policy: Policy) -> str:
    """The value of TAG. A managed policy is known by its name: another installation is to find that of the last."""
    return policy.name if policy.managed else f"pol_{policy.id.hex}"


def _name_taken(policy: Policy, name: str, found: Found | None) -> Keep:
    """AWS has another policy of this name; None when that one has gone meanwhile."""
    return partial(
        service.keep_name_taken,
        asked=service.Asked.of(policy, None),
        name=name,
        holder=None if found is None else found.tag,
        is_free=found is None,
        delay=backoff(policy.attempts + 1),
    )


async def _holder(organizations: "OrganizationsClient", name: str) -> Found | None:
    """The policy of this name in AWS."""
    pages = organizations.get_paginator("list_policies").paginate(Filter=POLICY_TYPE)
    ids = [each["Id"] async for page in pages for each in page["Policies"] if each["Name"] == name]
    if not ids:
        return None
    tagged = organizations.get_paginator("list_tags_for_resource").paginate(ResourceId=ids[0])
    tags = {each["Key"]: each["Value"] async for page in tagged for each in page["Tags"]}
    return Found(ids[0], tags.get(TAG))
