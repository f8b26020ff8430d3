"""Which of Freehold's own calls policies would deny, asked before they are put in force."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product

from server.policies.actions import resource_of, resource_types
from server.policies.conditions import ACCOUNT_NUMBER, AND_LATER, Context, context
from server.policies.document import Document, parse_document
from server.policies.evaluation import (
    Decision,
    Level,
    NamedDocument,
    Outcome,
    Place,
    about,
    depends_on,
    evaluate,
    statements_of,
)
from server.policies.wildcards import ANY_NAME
from server.policies.work import Work

# Services with one endpoint, by the Region that `aws:RequestedRegion` has for it, in the partition `aws`.
GLOBAL_SERVICES = {"account": "us-east-1", "iam": "us-east-1", "organizations": "us-east-1"}
REGION_KEYS = frozenset({"aws:requestedregion", "ec2:region"})
# Called in the tenancy's home Region alone; all others are called in each of its Regions.
HOME_SERVICES = ("s3",)
# The roles that Freehold makes in an account: those of groups by their path, and the one for AWS Support with the calls
# that are about it too.
GROUP_ROLES, SUPPORT_ROLE = f"role/freehold/{ANY_NAME}", "role/freehold-support"
SUPPORT_CALLS = ("iam:AttachRolePolicy", "iam:CreateRole", "iam:ListAttachedRolePolicies")
# Made in the management account, which no service control policy affects.
MANAGEMENT_SERVICE = "organizations"
# To assume the role is a call of the management account too, and to ask who one is can be denied to nobody:
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
NEVER_DENIED = ("sts:AssumeRole", "sts:GetCallerIdentity")


@dataclass(frozen=True, slots=True)
class Caller:
    """Freehold at work in a member account: the role it assumes there, and the Regions it works in.

    `account_id` is SOME_ACCOUNT where it is not known which account it is.
    """

    account_id: str
    role: str
    regions: tuple[str, ...]
    partition: str = "aws"
    organization_id: str | None = None
    # None where it is not known which of the Regions it is.
    home_region: str | None = None


@dataclass(frozen=True, slots=True)
class AtStake:
    """A call that would be denied, or may be: then `reasons` finish the sentence "it depends on ...".

    `statement` is its Sid or, such as `statement 2`, its number, `index` counts from 0. Policy and statement are None
    where nothing at the level allows the call. `regions` are the ones where it is so.
    """

    action: str
    level: str
    policy: str | None
    statement: str | None
    index: int | None
    regions: tuple[str, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lockout:
    denied: tuple[AtStake, ...]
    perhaps: tuple[AtStake, ...]


def with_full_access(name: str, policies: Mapping[str, Document]) -> Level:
    """A level where these are attached beside FullAWSAccess, as AWS attaches it to everything."""
    attached = (NamedDocument(policy, document) for policy, document in policies.items())
    return Level(name, (FULL_ACCESS, *attached))


def member_calls(permissions: Iterable[str]) -> tuple[str, ...]:
    """Those of the actions that Freehold's stages declare which it calls inside member accounts and AWS may deny."""
    calls = sorted({*permissions}.difference(NEVER_DENIED))
    return tuple(each for each in calls if each.partition(":")[0] != MANAGEMENT_SERVICE)


def denied_calls(levels: Sequence[Level], calls: Iterable[str], caller: Caller, work: Work | None = None) -> Lockout:
    """What becomes of Freehold's calls under these levels: the root first, the account last.

    `calls` are IAM actions, see `member_calls`. An allow list denies nothing as long as FullAWSAccess stays beside it:
    the levels say what is attached where. Raises TooMuchWork.
    """
    work = work or Work()
    return _lockout(_grouped(levels, calls, caller, work), [caller], work)


def lockout_of(document: Document, calls: Iterable[str], caller: Caller, work: Work) -> Lockout:
    """What becomes of Freehold's calls where the document is in force, whatever else is in force there.

    Raises TooMuchWork.
    """
    return denied_calls([with_full_access("", {"": document})], calls, caller, work)


def doubted_by_account(lockout: Lockout) -> frozenset[int]:
    """The statements, by their index, of which it depends on the account whether they deny something."""
    return frozenset(
        each.index for each in lockout.perhaps if each.index is not None and ACCOUNT_NUMBER in each.reasons
    )


def lockout_in(
    document: Document, lockout: Lockout, numbers: Iterable[str], calls: Sequence[str], caller: Caller, work: Work
) -> Lockout:
    """What becomes of the lockout, which is that of an account that is not known, in the accounts of these numbers.

    A statement that denies something in one of them denies it. Raises TooMuchWork.
    """
    doubted = doubted_by_account(lockout)
    in_doubt = Document(document.value, tuple(each for each in document.statements if each.index in doubted))
    levels = [with_full_access("", {"": in_doubt})]
    found = _lockout(
        _grouped(levels, calls, caller, work), [replace(caller, account_id=number) for number in numbers], work
    )
    certain = (each for each in lockout.perhaps if each.index not in doubted)
    return Lockout((*lockout.denied, *found.denied), (*certain, *found.perhaps))


@dataclass(frozen=True, slots=True)
class _Group:
    """Calls that no statement tells apart, and the levels with what is about them."""

    levels: Sequence[Level]
    calls: list[str]
    is_regional: bool


def _grouped(levels: Sequence[Level], calls: Iterable[str], caller: Caller, work: Work) -> Collection[_Group]:
    groups: dict[object, _Group] = {}
    for call in calls:
        found = about(levels, call, work)
        statements = [*statements_of(found)]
        is_regional = any(depends_on(each, work) & REGION_KEYS for each in statements)
        key = (
            tuple(map(id, statements)),
            _resources(call, caller, named=any(each.resources != ("*",) for each in statements)),
            (_regions(call, caller), *_region_keys(call, "", caller)) if is_regional else None,
        )
        groups.setdefault(key, _Group(found, [], is_regional)).calls.append(call)
    return groups.values()


def _lockout(groups: Collection[_Group], callers: Collection[Caller], work: Work) -> Lockout:
    """What becomes of the calls for any of the callers, which differ in their account alone."""
    denied: dict[AtStake, dict[str, None]] = defaultdict(dict)
    perhaps: dict[AtStake, dict[str, None]] = defaultdict(dict)
    for group in groups:
        decisions = {}
        for caller in callers:
            for region, decision in _decisions(group, caller, work):
                decisions[_told_apart_by(region, decision)] = region, decision
        for (region, decision), call in product(decisions.values(), group.calls):
            regions = dict.fromkeys([region] if group.is_regional else _regions(call, caller))
            work.spend(len(regions))
            for level in decision.not_allowed_at if decision.outcome is Outcome.DENIED else ():
                denied[AtStake(call, level, None, None, None, ())].update(regions)
            for place in decision.denied_by:
                denied[_at_stake(call, place)].update(regions)
            for doubt in decision.doubts:
                # Decided about another call of the group.
                reasons = (each.replace(f"of {group.calls[0]}", f"of {call}") for each in doubt.reasons)
                perhaps[_at_stake(call, doubt.place, tuple(reasons))].update(regions)
    certain = {(each.action, each.index, region) for each, regions in denied.items() for region in regions}
    for each, regions in perhaps.items():
        perhaps[each] = {region: None for region in regions if (each.action, each.index, region) not in certain}
    return Lockout(_with_regions(denied), _with_regions({each: found for each, found in perhaps.items() if found}))


def _decisions(group: _Group, caller: Caller, work: Work) -> Iterator[tuple[str, Decision]]:
    """The decision about the calls of a group in each Region, or in one of them where that does not matter."""
    call = group.calls[0]
    for region in _regions(call, caller)[: None if group.is_regional else 1]:
        for resource in _resources(call, caller, named=True):
            yield region, evaluate(group.levels, call, resource, _known(call, region, caller, work))


def _told_apart_by(region: str, decision: Decision) -> object:
    """What tells decisions of one group apart; statements are told by their identity, as they may be long."""
    return (
        region,
        decision.not_allowed_at,
        tuple(id(place.statement) for place in decision.denied_by),
        tuple((id(doubt.place.statement), doubt.reasons) for doubt in decision.doubts),
    )


def _at_stake(call: str, place: Place, reasons: tuple[str, ...] = ()) -> AtStake:
    return AtStake(call, place.level, place.policy, place.statement.name, place.statement.index, (), reasons)


def _with_regions(found: Mapping[AtStake, Iterable[str]]) -> tuple[AtStake, ...]:
    return tuple(replace(each, regions=tuple(regions)) for each, regions in found.items())


def _regions(call: str, caller: Caller) -> tuple[str, ...]:
    only = GLOBAL_SERVICES.get(call.partition(":")[0])
    if only is None and call.partition(":")[0] in HOME_SERVICES:
        only = caller.home_region
    return (only,) if only else caller.regions


def _resources(call: str, caller: Caller, *, named: bool) -> tuple[str | None, ...]:
    """What the call is made for; None is anything. Without `named` that does not matter."""
    own = f"arn:{caller.partition}:iam::{caller.account_id}:"
    if not named:
        return (None,)
    if call.startswith("account:"):
        return (f"arn:{caller.partition}:account::{caller.account_id}:account",)
    if call == "iam:CreateServiceLinkedRole":
        return (f"{own}role/aws-service-role/{ANY_NAME}",)
    kinds = resource_types(call) if call.startswith("iam:") else ()
    if "role" in kinds:
        return tuple(f"{own}{role}" for role in (GROUP_ROLES, *([SUPPORT_ROLE] if call in SUPPORT_CALLS else ())))
    if "instance-profile" in kinds:
        return (f"{own}instance-profile/{ANY_NAME}",)
    return (resource_of(call),)


def _known(call: str, region: str, caller: Caller, work: Work) -> Context:
    """What AWS finds in the context of a call: "AWS global condition context keys", IAM User Guide,
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    known: dict[str, str | None] = {
        **_region_keys(call, region, caller),
        # Of a session it is the role, not the session.
        "aws:PrincipalArn": f"arn:{caller.partition}:iam::{caller.account_id}:role/{caller.role}",
        "aws:PrincipalAccount": caller.account_id,
        "aws:PrincipalType": "AssumedRole",
        "aws:SecureTransport": "true",
        "aws:ViaAWSService": "false",
        "aws:PrincipalIsAWSService": "false",
        # Every session of a role has it, and Freehold has no such device.
        "aws:MultiFactorAuthPresent": "false",
        # What is denied from a moment on is denied then.
        "aws:CurrentTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}{AND_LATER}",
        "aws:EpochTime": f"{time.time():.0f}{AND_LATER}",
        **dict.fromkeys(
            (
                "aws:CalledVia",
                "aws:CalledViaFirst",
                "aws:CalledViaLast",
                "aws:MultiFactorAuthAge",
                "aws:PrincipalServiceName",
                "aws:PrincipalServiceNamesList",
                "aws:SourceAccount",
                "aws:SourceArn",
                "aws:SourceIdentity",
                "aws:username",
            )
        ),
    }
    if caller.organization_id:
        known["aws:PrincipalOrgID"] = caller.organization_id
    return context(known, work)


def _region_keys(call: str, region: str, caller: Caller) -> dict[str, str]:
    keys = {}
    if caller.partition == "aws" or call.partition(":")[0] not in GLOBAL_SERVICES:
        keys["aws:RequestedRegion"] = region
    if call.startswith("ec2:"):
        keys["ec2:Region"] = region
    return keys


def _full_access() -> NamedDocument:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    found = parse_document({"Version": "2012-10-17", "Statement": [statement]})
    assert isinstance(found, Document)
    return NamedDocument("FullAWSAccess", found)


FULL_ACCESS = _full_access()
