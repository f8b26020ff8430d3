"""Whether a document may be stored: what is wrong with it, and what of Freehold's own work it would deny.

The work on a document is CPU alone, so it is done in a thread and before a transaction begins.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.database import transaction
from server.errors import Refused, UserError, UserErrorCode, refuse
from server.policies.actions import check_actions
from server.policies.diff import changed_lines
from server.policies.document import ACTION, Document, Effect, check_size, parse_document
from server.policies.lockout import AtStake, Caller, Lockout, doubted_by_account, lockout_in, lockout_of, member_calls
from server.policies.models import Policy
from server.policies.paths import read_numbers, read_numbers_of
from server.policies.problems import Problem
from server.policies.requests import Compared, Target
from server.policies.source import located
from server.policies.wildcards import SOME_ACCOUNT
from server.policies.work import CHANGES, TooMuchWork, Work, away
from server.quotas.models import QuotaCode
from server.quotas.service import read_documented_limit
from server.tenancies.models import Tenancy
from server.tenancies.service import ROLE, partition

# Of the calls and of the reasons.
NAMED = 3
MOST_WARNINGS = 20
DECLARED = "SELECT DISTINCT unnest(permissions) FROM stage_definition WHERE roles && '{MEMBER,SECURITY,LOGGING}'"
EXEMPTION = f'"Condition": {{"ArnNotLike": {{"aws:PrincipalArn": "arn:*:iam::*:role/{ROLE}"}}}}'


OUTDATED = "The policy's document is older than the checks of documents and breaks them; update it first."
ALLOWS_ALONE = (
    "The document has no Deny and restricts nothing: FullAWSAccess stays attached beside it and allows everything. Deny"
    " what is not to be allowed, with NotAction all but what is."
)
TOO_MUCH = (
    "The document takes too much work to see whether it locks Freehold out: have fewer statements, conditions or"
    " values, shorter ones, or fewer wildcards and policy variables."
)


@dataclass(frozen=True, slots=True)
class Ground:
    """What the documents of a tenancy are held against."""

    calls: tuple[str, ...]
    caller: Caller
    size_limit: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A document that may be stored, and sentences about what cannot be told of it."""

    document: Document
    warnings: tuple[str, ...]

    @property
    def value(self) -> dict[str, Any]:
        return dict(self.document.value)


async def check_document(
    engine: AsyncEngine,
    tenancy_id: UUID,
    document: object,
    accepted: Collection[str] = (),
    policy_id: UUID | None = None,
) -> Checked:
    """The document of a policy, a JSON object or its text, when it may be stored.

    `accepted` are actions that are taken although Freehold does not know them. `policy_id` is the policy that it is
    for: where that is attached the document comes in force. Raises Refused: VALIDATION for one that is no action;
    INVALID_DOCUMENT with an error for each problem; LOCKOUT with one for each statement that would deny Freehold's own
    calls.
    """
    async with transaction(engine, tenancy_id) as session:
        ground = await read_ground(session, tenancy_id)

    def check() -> tuple[Document, Lockout]:
        found = parsed(document, ground.size_limit, accepted)
        return found, at_stake(found, ground, "document")

    found, lockout = await away(CHANGES, check)
    if policy_id is not None and doubted_by_account(lockout):
        async with transaction(engine, tenancy_id) as session:
            numbers = await read_numbers_of(session, tenancy_id, policy_id)
        lockout = await away(CHANGES, lambda: at_stake_in(found, ground, lockout, numbers))
    return Checked(found, (*_not_locked_out(lockout, "document"), *without_effect(found)))


async def compare_document(
    engine: AsyncEngine, tenancy_id: UUID, policy_id: UUID, document: dict[str, Any]
) -> Compared | None:
    """What a document that was checked changes in a policy; None when there is no such policy."""
    async with transaction(engine, tenancy_id) as session:
        stored = select(Policy.version, Policy.document).where(Policy.tenancy_id == tenancy_id, Policy.id == policy_id)
        row = (await session.execute(stored)).one_or_none()
    if row is None:
        return None
    version, before = row
    return Compared(version, await away(CHANGES, lambda: changed_lines(before, document)))


async def check_stored(engine: AsyncEngine, tenancy_id: UUID, policy_id: UUID, target: Target) -> tuple[str, ...]:
    """Warnings about a stored document, which may be older than a stage or a Region of Freehold's, on a target.

    What is attached beside it does not count: a statement that denies does so whatever the others say, and one that
    allows takes nothing away beside FullAWSAccess. Raises Refused: LOCKOUT, INVALID_DOCUMENT.
    """
    async with transaction(engine, tenancy_id) as session:
        stored = select(Policy.document).where(Policy.tenancy_id == tenancy_id, Policy.id == policy_id)
        value = await session.scalar(stored)
        ground = await read_ground(session, tenancy_id)
    if value is None:
        # Who attaches it says so.
        return ()

    def check() -> tuple[Document, Lockout]:
        document = parse_document(value)
        if not isinstance(document, Document):
            raise refuse(UserErrorCode.INVALID_DOCUMENT, OUTDATED, "policyId")
        return document, at_stake(document, ground, "policyId")

    document, lockout = await away(CHANGES, check)
    if doubted_by_account(lockout):
        async with transaction(engine, tenancy_id) as session:
            numbers = await read_numbers(session, tenancy_id, target)
        lockout = await away(CHANGES, lambda: at_stake_in(document, ground, lockout, numbers))
    return (*_not_locked_out(lockout, "policyId"), *without_effect(document))


async def read_ground(session: AsyncSession, tenancy_id: UUID) -> Ground:
    """What is known before any document is."""
    tenancy = await session.get_one(Tenancy, tenancy_id)
    # The stages are of a domain that policies know nothing of.
    permissions = (await session.scalars(text(DECLARED))).all()
    caller = Caller(
        account_id=SOME_ACCOUNT,
        role=ROLE,
        regions=tuple(tenancy.regions),
        partition=partition(tenancy.home_region),
        organization_id=tenancy.aws_organization_id,
        home_region=tenancy.home_region,
    )
    return Ground(
        member_calls(permissions), caller, await read_documented_limit(session, tenancy_id, QuotaCode.POLICY_SIZE)
    )


def at_stake(document: Document, ground: Ground, field: str) -> Lockout:
    """What becomes of Freehold's calls in an account of which nothing is known. Raises Refused: INVALID_DOCUMENT."""
    try:
        return lockout_of(document, ground.calls, ground.caller, Work())
    except TooMuchWork:
        raise refuse(UserErrorCode.INVALID_DOCUMENT, TOO_MUCH, field) from None


def at_stake_in(document: Document, ground: Ground, lockout: Lockout, numbers: Collection[str | None]) -> Lockout:
    """The same in the accounts of these numbers, None for one without; as before where that takes too much work."""
    if not numbers:
        # For the accounts to come.
        return lockout
    known = dict.fromkeys(each or SOME_ACCOUNT for each in numbers)
    try:
        return lockout_in(document, lockout, known, ground.calls, ground.caller, Work())
    except TooMuchWork:
        return lockout


def statement_of(found: AtStake) -> str:
    """A statement as messages name it: by its place, and by its Sid if it has one."""
    place = f"Statement[{found.index}]"
    return place if found.statement == f"statement {(found.index or 0) + 1}" else f'{place} ("{found.statement}")'


def parsed(document: object, size_limit: int, accepted: Collection[str]) -> Document:
    """The document without a problem; raises Refused: INVALID_DOCUMENT, VALIDATION."""
    for number, action in enumerate(accepted):
        if not ACTION.fullmatch(action):
            message = f'An action is a service, a colon and a name such as "s3:GetObject"; {action[:80]!r} is not.'
            raise refuse(UserErrorCode.VALIDATION, message, "allowUnknownActions", str(number))
    found = parse_document(document)
    if isinstance(found, tuple):
        raise _invalid(found)
    size = check_size(found, size_limit)
    problems = ((size,) if size else ()) + check_actions(found, accepted)
    if problems:
        raise _invalid(located(document, problems) if isinstance(document, str) else problems)
    return found


def warnings_of(lockout: Lockout) -> tuple[str, ...]:
    """A sentence for each statement that may deny Freehold's own calls."""
    return tuple(
        f"{statement} may deny Freehold's own {calls} in the accounts that it reaches: it depends on {reasons}."
        for statement, calls, reasons in _by_statement(lockout.perhaps)
    )[:MOST_WARNINGS]


def without_effect(document: Document) -> tuple[str, ...]:
    """A sentence about a document that restricts nothing, as AWS keeps FullAWSAccess attached beside it.

    AWS Organizations User Guide, "SCP evaluation", "Strategies for using SCPs".
    """
    return () if any(each.effect is Effect.DENY for each in document.statements) else (ALLOWS_ALONE,)


def _not_locked_out(lockout: Lockout, field: str) -> tuple[str, ...]:
    """The warnings about a document that locks Freehold out of nothing."""
    errors = [
        UserError(
            UserErrorCode.LOCKOUT,
            f"{statement} would deny Freehold's own {calls} in the accounts that the policy reaches. Exempt Freehold's"
            f" role: {EXEMPTION}.",
            (field,),
        )
        for statement, calls, _ in _by_statement(lockout.denied)
    ]
    if errors:
        raise Refused(*errors)
    return warnings_of(lockout)


def _by_statement(found: Collection[AtStake]) -> Iterator[tuple[str, str, str]]:
    """Each statement, the calls that it is about, and what it depends on."""
    statements: dict[str, list[AtStake]] = {}
    for each in sorted(found, key=lambda each: each.index or 0):
        statements.setdefault(statement_of(each), []).append(each)
    for statement, all_of_it in statements.items():
        calls = sorted({each.action for each in all_of_it})
        reasons = dict.fromkeys(reason for each in all_of_it for reason in each.reasons)
        yield statement, f"call{'' if len(calls) == 1 else 's'} {_first(calls, ', ')}", _first([*reasons], " and ")


def _first(names: Sequence[str], between: str) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{between.join(names[:NAMED])}{more}"


def _invalid(problems: Collection[Problem]) -> Refused:
    return Refused(
        *(
            UserError(
                UserErrorCode.INVALID_DOCUMENT,
                f"{each.path}: {each.message}" if each.path else each.message,
                ("document",),
            )
            for each in problems
        )
    )
