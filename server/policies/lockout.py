"""Which of Freehold's own calls policies would deny, asked before they are put in force."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from server.policies.actions import resource_of
from server.policies.conditions import Context, context
from server.policies.document import Document, parse_document
from server.policies.evaluation import Level, NamedDocument, Outcome, Place, evaluate

# Services with one endpoint, by the Region that `aws:RequestedRegion` has for it, in the partition `aws`.
GLOBAL_SERVICES = {"account": "us-east-1", "iam": "us-east-1", "organizations": "us-east-1"}
# Made in the management account, which no service control policy affects.
MANAGEMENT_SERVICE = "organizations"
# To assume the role is a call of the management account too, and to ask who one is can be denied to nobody:
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
NEVER_DENIED = ("sts:AssumeRole", "sts:GetCallerIdentity")


@dataclass(frozen=True, slots=True)
class Caller:
    """Freehold at work in a member account: the role it assumes there, and the Regions it works in.

    Of an account that is still to be created, any number of twelve digits stands for the one it will have.
    """

    account_id: str
    role: str
    regions: tuple[str, ...]
    partition: str = "aws"
    organization_id: str | None = None


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


def denied_calls(levels: Sequence[Level], calls: Iterable[str], caller: Caller) -> Lockout:
    """What becomes of Freehold's calls under these levels: the root first, the account last.

    `calls` are IAM actions, see `member_calls`. An allow list denies nothing as long as FullAWSAccess stays beside it:
    the levels say what is attached where.
    """
    denied: dict[AtStake, list[str]] = defaultdict(list)
    perhaps: dict[AtStake, list[str]] = defaultdict(list)
    for call in calls:
        for region in _regions(call, caller):
            decision = evaluate(levels, call, _resource(call, caller), _known(call, region, caller))
            for level in decision.not_allowed_at if decision.outcome is Outcome.DENIED else ():
                denied[AtStake(call, level, None, None, None, ())].append(region)
            for place in decision.denied_by:
                denied[_at_stake(call, place)].append(region)
            for doubt in decision.doubts:
                perhaps[_at_stake(call, doubt.place, doubt.reasons)].append(region)
    return Lockout(_with_regions(denied), _with_regions(perhaps))


def _at_stake(call: str, place: Place, reasons: tuple[str, ...] = ()) -> AtStake:
    return AtStake(call, place.level, place.policy, place.statement.name, place.statement.index, (), reasons)


def _with_regions(found: Mapping[AtStake, list[str]]) -> tuple[AtStake, ...]:
    return tuple(replace(each, regions=tuple(regions)) for each, regions in found.items())


def _regions(call: str, caller: Caller) -> tuple[str, ...]:
    only = GLOBAL_SERVICES.get(call.partition(":")[0])
    return (only,) if only else caller.regions


def _resource(call: str, caller: Caller) -> str | None:
    if call.startswith("account:"):
        return f"arn:{caller.partition}:account::{caller.account_id}:account"
    return resource_of(call)


def _known(call: str, region: str, caller: Caller) -> Context:
    """What AWS finds in the context of a call: "AWS global condition context keys", IAM User Guide,
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    known: dict[str, str | None] = {
        # Of a session it is the role, not the session.
        "aws:PrincipalArn": f"arn:{caller.partition}:iam::{caller.account_id}:role/{caller.role}",
        "aws:PrincipalAccount": caller.account_id,
        "aws:PrincipalType": "AssumedRole",
        "aws:SecureTransport": "true",
        "aws:ViaAWSService": "false",
        "aws:PrincipalIsAWSService": "false",
        **dict.fromkeys(
            (
                "aws:CalledVia",
                "aws:CalledViaFirst",
                "aws:CalledViaLast",
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
    if caller.partition == "aws" or call.partition(":")[0] not in GLOBAL_SERVICES:
        known["aws:RequestedRegion"] = region
    if call.startswith("ec2:"):
        known["ec2:Region"] = region
    return context(known)


def _full_access() -> NamedDocument:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    found = parse_document({"Version": "2012-10-17", "Statement": [statement]})
    assert isinstance(found, Document)
    return NamedDocument("FullAWSAccess", found)


FULL_ACCESS = _full_access()
