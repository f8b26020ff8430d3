"""What a policy would do on a target, before it is written or attached.

What a hostile document or request can make long is bounded: what is not decided then is UNKNOWN, or refused.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import transaction
from server.errors import Refused, UserErrorCode, refuse
from server.policies.actions import is_action, resource_of
from server.policies.checks import (
    OUTDATED,
    Ground,
    at_stake,
    at_stake_in,
    parsed,
    read_ground,
    statement_of,
    without_effect,
)
from server.policies.decisions import Decisions, New
from server.policies.diff import difference
from server.policies.document import ACTION, RESOURCE, Document, parse_document
from server.policies.lockout import doubted_by_account
from server.policies.paths import IN_FORCE, WANTED, Paths, read_paths
from server.policies.preview_types import (
    AffectedAccounts,
    Certainty,
    DeniedCall,
    PolicyPreview,
    PolicyRequestInput,
    QuotaAfter,
)
from server.policies.requests import Target, check_target
from server.policies.source import UNUSABLE
from server.policies.work import QUESTIONS, away
from server.quotas.models import QuotaCode
from server.quotas.service import read_documented_limit

NAMES = 10
MOST_REQUESTS = 50
# What a request may say: the longest ARN that AWS has (IAM User Guide, "IAM and AWS STS quotas"), and so long a value.
LONGEST = 2_048
MOST_VALUES = 100
# Freehold fills these in.
OWN_KEYS = ("aws:PrincipalAccount", "aws:PrincipalOrgID")


@dataclass(frozen=True, slots=True)
class Asked:
    """What to preview: a document, a policy that is there, or a policy with another document."""

    document: object
    policy_id: UUID | None
    target: Target
    requests: Sequence[PolicyRequestInput]
    accepted: Collection[str] = ()


async def preview_policy(engine: AsyncEngine, tenancy_id: UUID, asked: Asked) -> PolicyPreview:
    """What would be. Raises Refused: VALIDATION, NOT_FOUND, PROTECTED, INVALID_DOCUMENT."""
    if len(asked.requests) > MOST_REQUESTS:
        message = f"{len(asked.requests)} requests are asked for; at most {MOST_REQUESTS}."
        raise refuse(UserErrorCode.VALIDATION, message, "requests")
    if asked.document is None and asked.policy_id is None:
        raise refuse(UserErrorCode.VALIDATION, "Give `document`, `policyId` or both.", "document")
    async with transaction(engine, tenancy_id) as session:
        await check_target(session, tenancy_id, asked.target, lock=False)
        paths = await read_paths(session, tenancy_id, asked.target, asked.policy_id)
        ground = await read_ground(session, tenancy_id)
        limit = await read_documented_limit(session, tenancy_id, QuotaCode.POLICIES_PER_TARGET)
    if asked.policy_id is not None and asked.policy_id not in paths.policies:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no policy with this id.", "policyId")
    return await away(QUESTIONS, lambda: _Preview(asked, paths, ground).run(limit))


class _Preview:
    def __init__(self, asked: Asked, paths: Paths, ground: Ground) -> None:
        self._asked = asked
        self._paths = paths
        self._ground = ground
        self._warnings: list[str] = []
        for number, request in enumerate(asked.requests):
            self._check(request, str(number))
        known = paths.policies[asked.policy_id] if asked.policy_id else None
        self._name = known.name if known else None
        self._old = _read(known.in_force or known.newest) if known else None
        if asked.document is not None:
            self._new = parsed(asked.document, ground.size_limit, asked.accepted)
        else:
            newest = _read(known.newest) if known else None
            if newest is None:
                raise refuse(UserErrorCode.INVALID_DOCUMENT, OUTDATED, "policyId")
            self._new = newest
        self._warnings += without_effect(self._new)

    def run(self, limit: int) -> PolicyPreview:
        on_target = [state for policy, state in self._paths.on_target if policy == self._asked.policy_id]
        is_there = bool({*IN_FORCE, *WANTED} & set(on_target))
        change = difference(self._old, self._new) if self._old and is_there else None
        added = len(change.added) if change else len(self._new.statements)
        changed, removed = (len(change.changed), len(change.removed)) if change else (0, 0)
        accounts = self._paths.accounts if added or changed or removed else ()
        new = New(self._new, self._asked.policy_id, self._name, self._asked.target)
        decisions = Decisions(self._paths, new, self._ground.caller.organization_id)
        return PolicyPreview(
            accounts_affected=AffectedAccounts(count=len(accounts), names=[each.name for each in accounts[:NAMES]]),
            statements_added=added,
            statements_changed=changed,
            statements_removed=removed,
            denied_calls=list(self._denied_calls()),
            quota=QuotaAfter(
                code="POLICIES_PER_TARGET", limit=limit, used=len(self._paths.on_target) + 1 + (not on_target)
            ),
            requests=[found for request in self._asked.requests for found in decisions.of(request)],
            warnings=self._warnings,
        )

    def _denied_calls(self) -> Iterator[DeniedCall]:
        """A statement that denies does so whatever else is in force: only the number of an account can matter."""
        field = "policyId" if self._asked.document is None else "document"
        lockout = at_stake(self._new, self._ground, field)
        if doubted_by_account(lockout):
            numbers = [each.aws_account_id for each in self._paths.accounts]
            lockout = at_stake_in(self._new, self._ground, lockout, numbers)
        for certainty, calls in ((Certainty.DENIED, lockout.denied), (Certainty.PERHAPS, lockout.perhaps)):
            for each in calls:
                yield DeniedCall(
                    call=each.action,
                    statement=statement_of(each),
                    policy=self._name,
                    certainty=certainty,
                    regions=list(each.regions),
                    reasons=list(each.reasons),
                )

    def _check(self, request: PolicyRequestInput, number: str) -> None:
        """Refuse a request that nobody can make."""
        action = request.action
        is_accepted = action.lower() in {each.lower() for each in self._asked.accepted}
        if not ACTION.fullmatch(action) or set(action) & {"*", "?"}:
            message = f'An action is a service, a colon and a name such as "s3:GetObject"; {action[:80]!r} is not.'
            raise _refused(message, number, "action")
        if not is_action(action) and not is_accepted:
            message = f"AWS has no action {action[:80]}, as far as Freehold knows; if it has, name it in"
            raise _refused(f"{message} allowUnknownActions.", number, "action")
        resource = request.resource
        if resource is not None and not (resource == "*" or _is_resource(resource)):
            message = f'A resource is "*", or an ARN of at most {LONGEST} characters such as "arn:aws:s3:::bucket/key".'
            raise _refused(message, number, "resource")
        if resource is not None and resource_of(action) == "*" != resource:
            self._warnings.append(
                f'requests[{number}]: {action} is not about single resources; AWS decides it for "*", and so does'
                " this preview."
            )
        _check_context(request, number)


def _check_context(request: PolicyRequestInput, number: str) -> None:
    given = request.context or []
    seen: set[str] = set()
    for place, each in enumerate(given):
        field = (number, "context", str(place), "key")
        if len(each.key) > LONGEST or each.key.lower() in seen:
            raise _refused("A context key is there once, whatever its case.", *field)
        seen.add(each.key.lower())
        if each.key.lower() in map(str.lower, OWN_KEYS):
            raise _refused(f"{each.key} is that of the account, and not to be given.", *field)
    values = [value for each in given for value in each.values]
    if len(values) > MOST_VALUES or any(len(value) > LONGEST or UNUSABLE.search(value) for value in values):
        message = f"A request has at most {MOST_VALUES} values of up to {LONGEST} characters, none of them a control"
        raise _refused(f"{message} character.", number, "context")


def _is_resource(resource: str) -> bool:
    return len(resource) <= LONGEST and not UNUSABLE.search(resource) and RESOURCE.fullmatch(resource) is not None


def _refused(message: str, *field: str) -> Refused:
    return refuse(UserErrorCode.VALIDATION, message, "requests", *field)


def _read(text: str) -> Document | None:
    found = parse_document(json.loads(text))
    return found if isinstance(found, Document) else None
