"""The rules of policies that the API and the workers share: their events, and how a rollout goes on.

Every function works inside the caller's transaction. Locks are always taken in the order setup, account or account
type, policy; whoever changes an attachment holds its policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVarTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, delete, literal, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from server import leases
from server.account_types.models import AccountType
from server.accounts.models import Account
from server.jobs import EVENT_CHANNEL, Job
from server.leases import LASTING, NO_ERROR, StageError, StageErrorClass, change
from server.policies.models import AttachmentState, DriftKind, Policy, PolicyAttachment, PolicyDrift, PolicyState
from server.tenancies.models import Tenancy

Ts = TypeVarTuple("Ts")

NAME_TAKEN = "NAME_TAKEN"
# What an attachment is on, by its id in AWS; null while AWS does not have it.
TARGET_IN_AWS = case(
    (PolicyAttachment.account_type_id.is_not(None), AccountType.organizational_unit_id),
    (PolicyAttachment.account_id.is_not(None), Account.aws_account_id),
    else_=Tenancy.aws_root_id,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call to AWS was about, as it was when the call was chosen: its error is written onto nothing else."""

    version: int
    state: PolicyState
    # How often the policy had been woken by then.
    hint_number: int
    attachment_id: UUID | None
    attachment_state: AttachmentState | None

    @classmethod
    def of(cls, policy: Policy, attachment: PolicyAttachment | None) -> "Asked":
        attached = (None, None) if attachment is None else (attachment.id, attachment.state)
        return cls(policy.version, policy.state, policy.hint_number, *attached)

    def is_still(self, policy: Policy, attachment: PolicyAttachment | None) -> bool:
        """Whether it is still what is wanted of the policy, or of the attachment if the call was about one."""
        if self.attachment_id is not None:
            return attachment is not None and attachment.state is self.attachment_state
        return (policy.version, policy.state) == (self.version, self.state)


async def record_event(session: AsyncSession, policy: Policy, attachment: PolicyAttachment | None = None) -> int:
    """Write the policy's next event: policy and attachment as they are in this transaction. Returns its number.

    The row lock on the policy makes the numbers gapless and equal to commit order.
    """
    await session.flush()
    sequence: int = (
        await session.execute(
            text(
                """
                WITH numbered AS (UPDATE policy SET last_seq = last_seq + 1 WHERE id = :policy RETURNING *)
                INSERT INTO policy_event (policy_id, sequence, tenancy_id, policy, attachment)
                SELECT id, last_seq, tenancy_id, to_jsonb(numbered),
                       (SELECT to_jsonb(found) FROM policy_attachment found WHERE found.id = :attachment)
                FROM numbered RETURNING sequence
                """
            ),
            {"policy": policy.id, "attachment": None if attachment is None else attachment.id},
        )
    ).scalar_one()
    await session.execute(text("SELECT pg_notify(:channel, :hint)"), {"channel": EVENT_CHANNEL, "hint": str(policy.id)})
    return sequence


async def wake(session: AsyncSession, *policy_ids: UUID) -> None:
    """Have the policies rolled out now: there is something to do, or to look at again."""
    await leases.wake(session, Policy, Job.ROLL_OUT_POLICY, policy_ids)


async def wake_all(session: AsyncSession, tenancy_id: UUID) -> None:
    """Roll out every policy of a tenancy: its organization is ready."""
    await wake(session, *[policy.id for policy in await _locked(session, Policy.tenancy_id == tenancy_id)])


async def wake_attached(
    session: AsyncSession, tenancy_id: UUID, *, account_type_id: UUID | None = None, account_id: UUID | None = None
) -> None:
    """Attach what belongs on an account type or an account whose id in AWS is new.

    The caller has written the id before: whoever attaches a policy at the same time is either seen here, or sees it.
    """
    of_target = PolicyAttachment.account_type_id == account_type_id
    if account_id is not None:
        of_target = PolicyAttachment.account_id == account_id
    anew = (AttachmentState.ACTIVE, AttachmentState.FAILED)
    await _attach_again(session, and_(PolicyAttachment.tenancy_id == tenancy_id, of_target), anew)


async def attach_again(session: AsyncSession, tenancy_id: UUID, attachment_ids: Sequence[UUID]) -> None:
    """Attach what was in force and somebody has detached in AWS."""
    these = and_(PolicyAttachment.tenancy_id == tenancy_id, PolicyAttachment.id.in_(attachment_ids))
    await _attach_again(session, these, (AttachmentState.ACTIVE,))


async def _attach_again(session: AsyncSession, these: ColumnElement[bool], states: Sequence[AttachmentState]) -> None:
    """Wake the policies of these attachments; those in one of the states are PENDING again."""
    of_these = Policy.id.in_(select(PolicyAttachment.policy_id).where(these))
    policies = {policy.id: policy for policy in await _locked(session, of_these)}
    attachments = select(PolicyAttachment).where(
        PolicyAttachment.policy_id.in_(policies), these, PolicyAttachment.state.in_(states)
    )
    for attachment in (await session.scalars(attachments)).all():
        change(attachment, state=AttachmentState.PENDING, **NO_ERROR)
        await record_event(session, policies[attachment.policy_id], attachment)
    await wake(session, *policies)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An attachment that is to be in force; `is_refused` when AWS has refused it, or the policy before it had any."""

    attachment_id: UUID
    name: str
    aws_policy_id: str | None
    is_refused: bool
    is_active: bool


async def wanted_on_type(session: AsyncSession, tenancy_id: UUID, account_type_id: UUID) -> Sequence[Wanted]:
    """What is to be in force on an account type, by the names of the policies."""
    rows = (
        select(PolicyAttachment, Policy)
        .join(Policy, Policy.id == PolicyAttachment.policy_id)
        .where(
            PolicyAttachment.tenancy_id == tenancy_id,
            PolicyAttachment.account_type_id == account_type_id,
            PolicyAttachment.state != AttachmentState.DETACHING,
        )
        .order_by(Policy.name)
    )
    return [
        Wanted(
            attachment.id,
            policy.name,
            policy.aws_policy_id,
            attachment.state is AttachmentState.FAILED
            or (policy.aws_policy_id is None and policy.error_class in LASTING),
            attachment.state is AttachmentState.ACTIVE,
        )
        for attachment, policy in await session.execute(rows)
    ]


async def _locked(session: AsyncSession, which: ColumnElement[bool]) -> list[Policy]:
    # In one order, so that two who wake several do not wait for each other.
    return list(await session.scalars(select(Policy).where(which).order_by(Policy.id).with_for_update()))


async def next_attachment(session: AsyncSession, policy: Policy) -> tuple[PolicyAttachment, str | None] | None:
    """An attachment about which AWS is to be called, and its target's id there; attaching comes before detaching.

    None when there is none. What AWS refused for good waits for a retry, what goes on a target that AWS does not have
    yet for that target; an attachment that goes need not have one.
    """
    is_refused = PolicyAttachment.error_class.in_(LASTING)
    is_in_aws = literal(policy.aws_policy_id is not None)
    found = (
        on_targets(select(PolicyAttachment, TARGET_IN_AWS), policy)
        .where(
            or_(
                and_(PolicyAttachment.state == AttachmentState.PENDING, TARGET_IN_AWS.is_not(None), is_in_aws),
                and_(PolicyAttachment.state == AttachmentState.DETACHING, is_refused.is_not(True)),
            ),
        )
        .order_by(PolicyAttachment.state.desc(), PolicyAttachment.created_at, PolicyAttachment.id)
        .limit(1)
    )
    row = (await session.execute(found)).one_or_none()
    return None if row is None else (row[0], row[1])


def on_targets(found: Select[*Ts], policy: Policy) -> Select[*Ts]:
    """The attachments of a policy, joined to what they are on."""
    return (
        found.select_from(PolicyAttachment)
        .join(Tenancy, Tenancy.id == PolicyAttachment.tenancy_id)
        .outerjoin(AccountType, AccountType.id == PolicyAttachment.account_type_id)
        .outerjoin(Account, Account.id == PolicyAttachment.account_id)
        .where(PolicyAttachment.policy_id == policy.id)
    )


async def keep_version(session: AsyncSession, policy: Policy, aws_policy_id: str, version: int | None) -> None:
    """AWS has the policy under this id, with what `version` says; None when that is not known."""
    policy.aws_policy_id, policy.aws_version, policy.attempts = aws_policy_id, version, 0
    # Somebody may have changed or deleted it since the call.
    if policy.state is PolicyState.PENDING and version == policy.version:
        change(policy, state=PolicyState.ACTIVE, **NO_ERROR)
        await forget_drift(session, policy, PolicyDrift.kind == DriftKind.DOCUMENT_CHANGED)
    await forget_drift(session, policy, PolicyDrift.kind == DriftKind.POLICY_MISSING)
    await record_event(session, policy)


async def keep_attached(session: AsyncSession, policy: Policy, attachment_id: UUID) -> None:
    """AWS has attached it; somebody may have detached it since the call."""
    policy.attempts = 0
    attachment = await _attachment(session, attachment_id)
    if attachment is None:
        return
    await forget_drift(session, policy, _is_on_target(attachment))
    if attachment.state is AttachmentState.PENDING:
        change(attachment, state=AttachmentState.ACTIVE, **NO_ERROR)
        await record_event(session, policy, attachment)


async def keep_detached(session: AsyncSession, policy: Policy, attachment_id: UUID) -> None:
    """AWS has detached it, and so it goes; somebody may have attached it again since the call."""
    policy.attempts = 0
    attachment = await _attachment(session, attachment_id)
    if attachment is not None and attachment.state is AttachmentState.DETACHING:
        await _forget(session, policy, attachment)


async def forget_account_type(session: AsyncSession, tenancy_id: UUID, account_type_id: UUID) -> None:
    """Let go of what was attached to an account type that AWS has deleted, and its attachments with it."""
    of_type = (PolicyAttachment.tenancy_id == tenancy_id, PolicyAttachment.account_type_id == account_type_id)
    policies = await _locked(session, Policy.id.in_(select(PolicyAttachment.policy_id).where(*of_type)))
    by_id = {policy.id: policy for policy in policies}
    for attachment in (await session.scalars(select(PolicyAttachment).where(*of_type))).all():
        await _forget(session, by_id[attachment.policy_id], attachment)


async def _forget(session: AsyncSession, policy: Policy, attachment: PolicyAttachment) -> None:
    change(attachment, state=AttachmentState.DETACHED, **NO_ERROR)
    await forget_drift(session, policy, _is_on_target(attachment))
    await record_event(session, policy, attachment)
    await session.delete(attachment)
    await session.flush()


async def keep_deleted(session: AsyncSession, policy: Policy) -> None:
    """AWS has deleted it, and so it goes, but for its events; somebody may want it after all since the call."""
    if policy.state is not PolicyState.DELETING:
        await keep_missing(session, policy)
        return
    change(policy, state=PolicyState.DELETED, lease_owner=None, lease_until=None, **NO_ERROR)
    await record_event(session, policy)
    await session.delete(policy)
    await session.flush()


async def keep_missing(session: AsyncSession, policy: Policy) -> None:
    """Somebody has deleted it in AWS, with its attachments: it is to be made anew, unless it was to go anyway."""
    policy.aws_policy_id = policy.aws_name = policy.aws_version = None
    await forget_drift(session, policy, PolicyDrift.kind != DriftKind.POLICY_MISSING)
    if policy.state is not PolicyState.DELETING:
        policy.state = PolicyState.PENDING
    await record_event(session, policy)
    in_force = select(PolicyAttachment).where(
        PolicyAttachment.policy_id == policy.id, PolicyAttachment.state == AttachmentState.ACTIVE
    )
    for attachment in (
        await session.scalars(in_force.order_by(PolicyAttachment.created_at, PolicyAttachment.id))
    ).all():
        attachment.state = AttachmentState.PENDING
        await record_event(session, policy, attachment)


async def keep_error(session: AsyncSession, policy: Policy, asked: Asked, error: StageError, delay: timedelta) -> None:
    """A call to AWS about the policy, or about an attachment, has ended with an error.

    Where that passes the rollout gives up its lease and goes on after `delay`. Otherwise what was to be made is FAILED,
    what was to go stays as it is with the error, and the rollout goes on with the rest. What somebody has asked since
    the call is tried at once, and has no error of before.
    """
    attachment = None if asked.attachment_id is None else await _attachment(session, asked.attachment_id)
    if not asked.is_still(policy, attachment):
        return
    passes = error.error_class is StageErrorClass.TRANSIENT
    change(policy if attachment is None else attachment, **error.columns)
    if not passes:
        if attachment is None and policy.state is PolicyState.PENDING:
            policy.state = PolicyState.FAILED
        elif attachment is not None and attachment.state is AttachmentState.PENDING:
            attachment.state = AttachmentState.FAILED
    else:
        await leases.defer(session, policy, delay, hint_number=asked.hint_number)
    await record_event(session, policy, attachment)


async def keep_name_taken(
    session: AsyncSession,
    policy: Policy,
    asked: Asked,
    name: str,
    holder: str | None,
    *,
    is_free: bool,
    delay: timedelta,
) -> None:
    """AWS has refused the name for another policy that has it; `holder` is the id of that one, if Freehold's.

    One of this tenancy is being renamed or deleted there, and its name is waited for; `is_free` when it has gone.
    """
    if policy.aws_policy_id is None and not is_free:
        # No call of ours has made it, so under another name it is another beginning.
        policy.aws_name = None
        if name != policy.name:
            return
    others = select(Policy.id).where(Policy.tenancy_id == policy.tenancy_id, Policy.id != policy.id)
    ours = {f"pol_{key.hex}" for key in await session.scalars(others)} if holder is not None else set()
    if is_free or holder in ours:
        message = f"AWS still has another policy named {name!r}; the rollout goes on when the name is free."
        error = StageError(NAME_TAKEN, message, StageErrorClass.TRANSIENT)
    else:
        message = (
            f"AWS has a policy named {name!r} that is not Freehold's. Rename or delete it there, or give this "
            "one another name; then retry the rollout."
        )
        error = StageError(NAME_TAKEN, message, StageErrorClass.NEEDS_PERSON)
    await keep_error(session, policy, asked, error, delay)


async def forget_drift(session: AsyncSession, policy: Policy, which: ColumnElement[bool]) -> None:
    """What a rollout has just made so in AWS is no longer otherwise there."""
    await session.execute(
        delete(PolicyDrift)
        .where(PolicyDrift.policy_id == policy.id, which)
        .execution_options(synchronize_session=False)
    )


def _is_on_target(attachment: PolicyAttachment) -> ColumnElement[bool]:
    """Whether a drift is about the target of the attachment."""
    if attachment.account_type_id is not None:
        return PolicyDrift.account_type_id == attachment.account_type_id
    if attachment.account_id is not None:
        return PolicyDrift.account_id == attachment.account_id
    return PolicyDrift.target_tenancy_id == attachment.tenancy_id


async def _attachment(session: AsyncSession, attachment_id: UUID) -> PolicyAttachment | None:
    """None when it has gone meanwhile, with its account type."""
    return await session.get(PolicyAttachment, attachment_id, populate_existing=True)
