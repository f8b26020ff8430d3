"""What a user may ask of a policy. Each function is one transaction, and a rollout makes AWS so afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.account_types.models import AccountType
from server.account_types.service import MANAGEMENT, usable
from server.accounts.models import Account, AccountRole, AccountStatus
from server.accounts.service import Actor
from server.errors import Refused, UserError, UserErrorCode, refuse
from server.leases import NO_ERROR, change
from server.policies.diff import changed_lines
from server.policies.models import AttachmentState, Policy, PolicyAttachment, PolicyState, PolicyVersion
from server.policies.names import check_description, check_name
from server.policies.service import record_event, wake
from server.quotas.models import QuotaCode
from server.quotas.service import check_quota

# AWS Organizations User Guide, "Service control policies (SCPs)".
UNAFFECTED = "Service control policies do not affect the management account of an organization; choose another target."

NAME_IN_USE = UserError(UserErrorCode.NAME_IN_USE, "Another policy has this name.", ("name",))
RACES: Mapping[str, UserError] = {
    "uq_policy_name": NAME_IN_USE,
    "uq_policy_attachment_target": UserError(
        UserErrorCode.ALREADY_ATTACHED, "The policy is attached to this target already.", ("target",)
    ),
}


@dataclass(frozen=True, slots=True)
class Target:
    """An account type or an account, or the whole tenancy when it names neither."""

    account_type_id: UUID | None = None
    account_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """What another document changes in the one that a policy has at `version`."""

    version: int
    diff: str


class Moved(Exception):
    """Somebody else has changed the policy in the meantime: what was made from its old version is to be made anew."""


async def create_policy(
    session: AsyncSession, actor: Actor, tenancy_id: UUID, *, name: str, description: str, document: dict[str, Any]
) -> UUID:
    """Add a policy with a document that was checked, and begin its rollout.

    Raises Refused: VALIDATION, NAME_IN_USE, QUOTA_EXCEEDED.
    """
    check_name(name)
    check_description(description)
    await _check_free(session, tenancy_id, name)
    await check_quota(session, tenancy_id, QuotaCode.POLICIES)
    policy = await add_policy(session, actor, tenancy_id, name=name, description=description, document=document)
    return policy.id


async def add_policy(
    session: AsyncSession,
    actor: Actor,
    tenancy_id: UUID,
    *,
    name: str,
    description: str,
    document: dict[str, Any],
    managed: bool = False,
) -> Policy:
    """Add a policy that was checked, with its first version and event, and wake its rollout."""
    policy = Policy(
        tenancy_id=tenancy_id,
        name=name,
        description=description,
        document=document,
        managed=managed,
        created_by_kind=actor.kind,
        created_by_id=actor.id,
        created_by_name=actor.name,
        **requested_by(actor),
    )
    session.add(policy)
    await session.flush()
    _add_version(session, actor, policy, "")
    await record_event(session, policy)
    await wake(session, policy.id)
    return policy


async def update_policy(
    session: AsyncSession,
    actor: Actor,
    tenancy_id: UUID,
    policy_id: UUID,
    *,
    expected_version: int | None = None,
    name: str | None = None,
    description: str | None = None,
    document: dict[str, Any] | None = None,
    compared: Compared | None = None,
) -> UUID:
    """Change what is given, as another version; the document was checked, and compared where it may be anybody's.

    Raises Moved when the policy is of another version by now than the one `compared` is about.
    Raises Refused as `create_policy`; PROTECTED, ROLLOUT_IN_PROGRESS; VERSION_CONFLICT when the policy's version is not
    `expected_version`.
    """
    policy = await _changeable(session, tenancy_id, policy_id)
    if expected_version not in (None, policy.version):
        raise refuse(
            UserErrorCode.VERSION_CONFLICT,
            f"The policy {policy.name!r} is at version {policy.version} by now, not at {expected_version}: somebody "
            f"has changed it. See what `versions` says of that, and send a change of version {policy.version}.",
            "expectedVersion",
        )
    if name is not None and name != policy.name:
        check_name(name)
        await _check_free(session, tenancy_id, name, policy.id)
    if description is not None:
        check_description(description)
    if compared is not None and compared.version != policy.version:
        raise Moved
    diff = compared.diff if compared else None
    await change_policy(session, actor, policy, name=name, description=description, document=document, diff=diff)
    return policy.id


async def change_policy(
    session: AsyncSession,
    actor: Actor,
    policy: Policy,
    *,
    name: str | None = None,
    description: str | None = None,
    document: dict[str, Any] | None = None,
    diff: str | None = None,
    managed: bool | None = None,
) -> bool:
    """Give a locked policy what was checked, as another version, and wake its rollout. Returns whether it differs.

    `diff` is that of its document and this one; without it they are compared here, on the event loop.
    """
    given = {"name": name, "description": description, "document": document, "managed": managed}
    changed = {field: value for field, value in given.items() if value not in (None, getattr(policy, field))}
    if not changed:
        return False
    if diff is None:
        diff = changed_lines(policy.document, document or policy.document)
    change(policy, **changed, **NO_ERROR, **requested_by(actor), state=PolicyState.PENDING, version=policy.version + 1)
    policy.updated_at = (await session.execute(select(func.now()))).scalar_one()
    await session.flush()
    _add_version(session, actor, policy, diff)
    await record_event(session, policy)
    await wake(session, policy.id)
    return True


async def delete_policy(session: AsyncSession, actor: Actor, tenancy_id: UUID, policy_id: UUID) -> UUID:
    """Have a policy deleted that is attached to nothing. Raises Refused: POLICY_IN_USE, PROTECTED, NOT_FOUND."""
    policy = await locked_policy(session, tenancy_id, policy_id)
    _refuse_managed(policy, "deleted")
    count = await session.scalar(
        select(func.count()).select_from(PolicyAttachment).where(PolicyAttachment.policy_id == policy.id)
    )
    if count:
        raise refuse(
            UserErrorCode.POLICY_IN_USE,
            f"The policy {policy.name!r} is attached to {count} target{'' if count == 1 else 's'}; detach it there "
            "and wait until it is detached.",
            "policyId",
        )
    change(policy, state=PolicyState.DELETING, **NO_ERROR, **requested_by(actor))
    await record_event(session, policy)
    await wake(session, policy.id)
    return policy.id


async def attach_policy(session: AsyncSession, actor: Actor, tenancy_id: UUID, policy_id: UUID, target: Target) -> UUID:
    """Attach a policy. Returns the id of the attachment; one that was being removed is kept after all.

    Raises Refused: NOT_FOUND, TYPE_DELETED, ALREADY_ATTACHED, ROLLOUT_IN_PROGRESS, QUOTA_EXCEEDED; PROTECTED for a
    target that is Freehold's or AWS's own, or a managed policy.
    """
    # First, in the order in which everybody locks.
    await check_target(session, tenancy_id, target, lock=True)
    policy = await _changeable(session, tenancy_id, policy_id)
    attachment = (await session.scalars(attachment_to(policy, target))).one_or_none()
    if attachment is None:
        on_target = (target.account_type_id, target.account_id)
        await check_quota(session, tenancy_id, QuotaCode.POLICIES_PER_TARGET, target=on_target, field=("target",))
        return (await add_attachment(session, actor, policy, target)).id
    if attachment.state is not AttachmentState.DETACHING:
        raise refuse(
            UserErrorCode.ALREADY_ATTACHED,
            f"The policy {policy.name!r} is attached to this target already; the attachment is {attachment.state}.",
            "target",
        )
    change(attachment, state=AttachmentState.PENDING, **NO_ERROR, **requested_by(actor))
    await record_event(session, policy, attachment)
    await wake(session, policy.id)
    return attachment.id


async def add_attachment(session: AsyncSession, actor: Actor, policy: Policy, target: Target) -> PolicyAttachment:
    """Attach a policy that is locked, or new, to a target that was checked, and wake its rollout."""
    attachment = PolicyAttachment(
        tenancy_id=policy.tenancy_id,
        policy_id=policy.id,
        account_type_id=target.account_type_id,
        account_id=target.account_id,
        created_by_kind=actor.kind,
        created_by_id=actor.id,
        created_by_name=actor.name,
        **requested_by(actor),
    )
    session.add(attachment)
    await record_event(session, policy, attachment)
    await wake(session, policy.id)
    return attachment


async def detach_policy(session: AsyncSession, actor: Actor, tenancy_id: UUID, policy_id: UUID, target: Target) -> UUID:
    """Have a policy detached. Returns the id of the attachment. Raises Refused: NOT_ATTACHED, PROTECTED."""
    policy = await locked_policy(session, tenancy_id, policy_id)
    _refuse_managed(policy, "detached")
    attachment = (await session.scalars(attachment_to(policy, target))).one_or_none()
    if attachment is None:
        raise refuse(
            UserErrorCode.NOT_ATTACHED, f"The policy {policy.name!r} is not attached to this target.", "target"
        )
    change(attachment, state=AttachmentState.DETACHING, **NO_ERROR, **requested_by(actor))
    await record_event(session, policy, attachment)
    await wake(session, policy.id)
    return attachment.id


async def retry_rollout(session: AsyncSession, actor: Actor, tenancy_id: UUID, policy_id: UUID) -> UUID:
    """Try again at once what AWS refused, or what waits. Raises Refused: NOTHING_TO_RETRY, ROLLOUT_IN_PROGRESS."""
    policy = await locked_policy(session, tenancy_id, policy_id)
    refused = select(PolicyAttachment).where(
        PolicyAttachment.policy_id == policy.id, PolicyAttachment.error_code.is_not(None)
    )
    attachments = (await session.scalars(refused)).all()
    if policy.error_code is None and not attachments:
        if policy.next_attempt_at is not None:
            raise refuse(
                UserErrorCode.ROLLOUT_IN_PROGRESS, f"The policy {policy.name!r} is being rolled out.", "policyId"
            )
        raise refuse(
            UserErrorCode.NOTHING_TO_RETRY,
            f"Nothing has failed in the rollout of the policy {policy.name!r}.",
            "policyId",
        )
    if policy.error_code is not None:
        state = PolicyState.PENDING if policy.state is PolicyState.FAILED else policy.state
        change(policy, state=state, **NO_ERROR, **requested_by(actor))
        await record_event(session, policy)
    for attachment in attachments:
        failed = attachment.state is AttachmentState.FAILED
        next_state = AttachmentState.PENDING if failed else attachment.state
        change(attachment, state=next_state, **NO_ERROR, **requested_by(actor))
        await record_event(session, policy, attachment)
    await wake(session, policy.id)
    return policy.id


def requested_by(actor: Actor) -> dict[str, Any]:
    """The columns that hold who asked last."""
    return {"requested_by_kind": actor.kind, "requested_by_id": actor.id, "requested_by_name": actor.name}


def attachment_to(policy: Policy, target: Target) -> Select[PolicyAttachment]:
    """The attachment of the policy to the target."""
    return select(PolicyAttachment).where(
        PolicyAttachment.policy_id == policy.id,
        PolicyAttachment.account_type_id.is_not_distinct_from(target.account_type_id),
        PolicyAttachment.account_id.is_not_distinct_from(target.account_id),
    )


async def locked_policy(session: AsyncSession, tenancy_id: UUID, policy_id: UUID) -> Policy:
    """The policy, locked for a change. Raises Refused: NOT_FOUND."""
    found = select(Policy).where(Policy.tenancy_id == tenancy_id, Policy.id == policy_id).with_for_update()
    policy = (await session.scalars(found)).one_or_none()
    if policy is None:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no policy with this id.", "policyId")
    return policy


async def _changeable(session: AsyncSession, tenancy_id: UUID, policy_id: UUID) -> Policy:
    policy = await locked_policy(session, tenancy_id, policy_id)
    _refuse_managed(policy, "changed")
    if policy.state is PolicyState.DELETING:
        raise refuse(UserErrorCode.ROLLOUT_IN_PROGRESS, f"The policy {policy.name!r} is being deleted.", "policyId")
    return policy


def _refuse_managed(policy: Policy, what: str) -> None:
    if policy.managed:
        raise refuse(
            UserErrorCode.PROTECTED,
            f"The policy {policy.name!r} is Freehold's own and protects what it needs; it cannot be {what}.",
            "policyId",
        )


async def check_target(session: AsyncSession, tenancy_id: UUID, target: Target, *, lock: bool) -> None:
    """Refuse what cannot be a target: NOT_FOUND, TYPE_DELETED, PROTECTED.

    What can is locked on request: its id in AWS, if it has none yet, comes after this.
    """
    if target.account_type_id is not None:
        type_ = select(AccountType).where(
            AccountType.tenancy_id == tenancy_id, AccountType.id == target.account_type_id
        )
        found = (await session.scalars(type_.with_for_update(read=True) if lock else type_)).one_or_none()
        account_type = usable(found, "target", "accountTypeId")
        if account_type.foundation and account_type.name == MANAGEMENT:
            raise _refuse_target(UserErrorCode.PROTECTED, UNAFFECTED, "accountTypeId")
    if target.account_id is not None:
        row = select(Account).where(Account.tenancy_id == tenancy_id, Account.id == target.account_id)
        account = (await session.scalars(row.with_for_update(read=True) if lock else row)).one_or_none()
        if account is None:
            raise _refuse_target(UserErrorCode.NOT_FOUND, "There is no account with this id.", "accountId")
        if account.role is AccountRole.MANAGEMENT:
            raise _refuse_target(UserErrorCode.PROTECTED, UNAFFECTED, "accountId")
        if account.status is AccountStatus.CANCELLED:
            message = f"The account {account.name!r} was cancelled: AWS never had it."
            raise _refuse_target(UserErrorCode.PROTECTED, message, "accountId")


def _refuse_target(code: UserErrorCode, message: str, field: str) -> Refused:
    return refuse(code, message, "target", field)


async def _check_free(session: AsyncSession, tenancy_id: UUID, name: str, but: UUID | None = None) -> None:
    others = select(Policy.state).where(
        Policy.tenancy_id == tenancy_id,
        func.lower(Policy.name) == func.lower(name),
        Policy.id.is_distinct_from(but),
    )
    state = (await session.scalars(others)).first()
    if state is PolicyState.DELETING:
        raise refuse(NAME_IN_USE.code, "The policy of this name is being deleted; its name is free after that.", "name")
    if state is not None:
        raise refuse(NAME_IN_USE.code, NAME_IN_USE.message, "name")


def _add_version(session: AsyncSession, actor: Actor, policy: Policy, diff: str) -> None:
    session.add(
        PolicyVersion(
            policy_id=policy.id,
            number=policy.version,
            tenancy_id=policy.tenancy_id,
            name=policy.name,
            description=policy.description,
            document=policy.document,
            diff=diff,
            created_by_kind=actor.kind,
            created_by_id=actor.id,
            created_by_name=actor.name,
        )
    )
