"""What a user may ask of an account, where it takes a setup to make it so. Each function is one transaction.

The database holds what is wanted; a setup makes AWS so. That is why changing an account begins one, like creating it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.access.grants import forget_account, join_account_type
from server.account_types.models import AccountType
from server.account_types.service import usable
from server.accounts import service as accounts
from server.accounts.governance import hold_propagation, propagate_tags
from server.accounts.models import Account, AccountRole, AccountStatus
from server.accounts.service import Actor
from server.accounts.tags import TagValue, remove_tags, set_tags
from server.assurance.models import LIVE, CreateIntent, IntentState, Setup, SetupKind, SetupStatus
from server.assurance.service import (
    begin_setup,
    cancel_setup,
    lock_latest_setup,
    record_change,
    retry_setup,
    setup_in_progress,
)
from server.errors import UserError, UserErrorCode, refuse
from server.idempotency import IdempotencyKey, Request, once
from server.quotas.models import QuotaCode
from server.quotas.service import check_quota
from server.tenancies.models import Tenancy

# What a unique constraint means when two requests race past the checks.
RACES: Mapping[str, UserError] = {
    **accounts.RACES,
    "uq_setup_live": UserError(
        UserErrorCode.SETUP_IN_PROGRESS, "A setup of this account is in progress; try again when it has finished."
    ),
}


async def create_account(
    session: AsyncSession,
    actor: Actor,
    tenancy_id: UUID,
    *,
    name: str,
    account_type_id: UUID,
    alias: str | None = None,
    tags: Sequence[TagValue] = (),
    email: str | None = None,
    idempotency_key: str | None = None,
    is_item: bool = False,
) -> UUID:
    """Add an account and begin its setup, which creates it in AWS. Returns its id; raises Refused, changing nothing.

    Under a key that has served the same request before it returns the account of then, and changes nothing. The keys of
    the items of a batch are apart from those of single requests.
    """

    async def create() -> UUID:
        tenancy = await session.get_one(Tenancy, tenancy_id)
        account_type = await _account_type(session, tenancy_id, account_type_id)
        await check_quota(session, tenancy_id, QuotaCode.ACCOUNTS)
        account = await accounts.add_account(
            session, actor, tenancy, account_type, name=name, alias=alias, email=email, tags=tags
        )
        await join_account_type(session, account)
        await begin_setup(session, account, SetupKind.CREATE)
        return account.id

    asked = {
        "name": name,
        "accountTypeId": account_type_id,
        "alias": alias,
        "email": email,
        "tags": sorted([tag.key, tag.value] for tag in tags),
    }
    request = Request("createAccounts" if is_item else "createAccount", asked, is_item)
    return await once(session, tenancy_id, idempotency_key, request, IdempotencyKey.account_id, create)


async def update_account(
    session: AsyncSession,
    tenancy_id: UUID,
    account_id: UUID,
    *,
    name: str | None = None,
    alias: str | None = None,
    email: str | None = None,
    account_type_id: UUID | None = None,
    tags: Sequence[TagValue] | None = None,
    may_move: bool = True,
) -> UUID:
    """Change what is given. A new name, alias or type begins a REASSURE setup that brings AWS in line.

    Tags alone wait for no setup; where the tenancy wants them in AWS, a GOVERN setup brings them there.

    An account that AWS does not have yet only changes here: a retry of its setup creates it as it is then.
    Raises Refused, changing nothing: SETUP_IN_PROGRESS while a setup is live, unless tags are all that changes;
    FORBIDDEN for another type where that is not for who asks.
    """
    if tags is not None:
        await hold_propagation(session, tenancy_id)
    latest = await lock_latest_setup(session, tenancy_id, account_id)
    account = await _account(session, tenancy_id, account_id)
    account_type = None if account_type_id is None else await _account_type(session, tenancy_id, account_type_id)
    if email is not None:
        await _check_email_open(session, account)
    changed = await accounts.change_account(
        session, account, name=name, alias=alias, email=email, account_type=account_type, tags=tags
    )
    if "account_type_id" in changed:
        if not may_move:
            raise refuse(
                UserErrorCode.FORBIDDEN,
                "To move an account to another type needs the role ADMIN, as other groups have access to it there and "
                "other policies bind it.",
                "accountTypeId",
            )
        await join_account_type(session, account)
    aws_differs = bool(changed - {"tags"})
    if aws_differs and latest is not None and latest.status in LIVE:
        raise setup_in_progress(account)
    if aws_differs and account.aws_account_id is not None:
        await begin_setup(session, account, SetupKind.REASSURE)
    elif changed:
        await record_change(session, account, latest)
        if "tags" in changed:
            await propagate_tags(session, account)
    return account.id


async def move_account(
    session: AsyncSession, tenancy_id: UUID, account_id: UUID, account_type_id: UUID, key: str
) -> UUID:
    """Move an account to another type, as an item of a batch with a key; to the one that it is of changes nothing.

    Raises Refused as `update_account` does.
    """

    async def move() -> UUID:
        return await update_account(session, tenancy_id, account_id, account_type_id=account_type_id)

    request = Request("moveAccounts", {"accountId": account_id, "accountTypeId": account_type_id}, is_item=True)
    return await once(session, tenancy_id, key, request, IdempotencyKey.account_id, move)


async def set_account_tags(session: AsyncSession, tenancy_id: UUID, account_id: UUID, tags: Sequence[TagValue]) -> UUID:
    """Give the account these tags besides its own. Raises Refused as `set_tags` does, NOT_FOUND and PROTECTED."""
    return await _change_tags(session, tenancy_id, account_id, lambda account: set_tags(session, account, tags))


async def remove_account_tags(session: AsyncSession, tenancy_id: UUID, account_id: UUID, keys: Sequence[str]) -> UUID:
    """Take the tags with these keys from the account; it need not have them. Raises Refused: as `set_account_tags`."""
    return await _change_tags(session, tenancy_id, account_id, lambda account: remove_tags(session, account, keys))


async def _change_tags(
    session: AsyncSession, tenancy_id: UUID, account_id: UUID, change: Callable[[Account], Awaitable[bool]]
) -> UUID:
    """Change tags and nothing else, which no setup stands in the way of; what has changed is an event."""
    await hold_propagation(session, tenancy_id)
    latest = await lock_latest_setup(session, tenancy_id, account_id)
    account = await _account(session, tenancy_id, account_id)
    accounts.refuse_gone(account)
    if await change(account):
        await record_change(session, account, latest)
        await propagate_tags(session, account)
    return account.id


async def retry_account_setup(
    session: AsyncSession, tenancy_id: UUID, account_id: UUID, stage: str | None = None
) -> UUID:
    """Retry what failed in the account's latest setup. Raises Refused as `retry_setup` does, NOT_FOUND besides."""
    account = await _account(session, tenancy_id, account_id, lock=False)
    await retry_setup(session, account, stage)
    return account.id


async def reassure_account(session: AsyncSession, tenancy_id: UUID, account_id: UUID) -> UUID:
    """Begin a setup that goes through every stage again and puts right what differs in AWS. Returns the account's id.

    Raises Refused, changing nothing: NOT_FOUND, SETUP_IN_PROGRESS, PROTECTED for an account that was given up or
    closed, NOT_READY for one that never was ACTIVE, whose first setup does all of that.
    """
    # The setup first, as everybody locks them.
    await lock_latest_setup(session, tenancy_id, account_id)
    account = await _account(session, tenancy_id, account_id)
    accounts.refuse_gone(account)
    if account.status is AccountStatus.ERROR:
        raise refuse(
            UserErrorCode.NOT_READY,
            f"The first setup of {account.name!r} has failed; put right what it says and retry it with "
            "retryAccountSetup.",
            "accountId",
        )
    await begin_setup(session, account, SetupKind.REASSURE)
    return account.id


async def cancel_account_setup(session: AsyncSession, tenancy_id: UUID, setup_id: UUID) -> UUID:
    """Give up an account that AWS was not asked for, or has refused. Returns the id of the account.

    Raises Refused, changing nothing: NOT_FOUND, SETUP_OVER, CREATION_BEGUN once AWS may have made the account,
    PROTECTED for a foundation account.
    """
    # The lock that a worker takes before it commits that it calls: either is seen by the other.
    wanted = select(Setup).where(Setup.tenancy_id == tenancy_id, Setup.id == setup_id).with_for_update()
    setup = (await session.scalars(wanted)).one_or_none()
    if setup is None:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no account setup with this id.", "setupId")
    if setup.status not in (*LIVE, SetupStatus.FAILED):
        raise refuse(
            UserErrorCode.SETUP_OVER,
            f"The setup is over, so there is nothing to cancel: it is {setup.status}.",
            "setupId",
        )
    account = await _account(session, tenancy_id, setup.account_id)
    if account.role is not AccountRole.MEMBER:
        raise refuse(
            UserErrorCode.PROTECTED,
            f"The tenancy cannot do without its {account.role.lower()} account; its setup is not cancelled.",
            "setupId",
        )
    if await _may_be_in_aws(session, account):
        raise refuse(
            UserErrorCode.CREATION_BEGUN,
            f"The account {account.name!r} is being created in AWS, or may be there already. A setup can be cancelled "
            "only while it is certain that AWS has not made the account; let this one end, or retry it if it has "
            "failed.",
            "setupId",
        )
    await cancel_setup(session, setup)
    await forget_account(session, account)
    return account.id


async def _may_be_in_aws(session: AsyncSession, account: Account) -> bool:
    """Whether AWS has the account or may have it; False if AWS was never asked for it, or refused every time."""
    intent = await session.get(CreateIntent, account.id)
    undecided = intent is not None and (
        intent.outcome_unknown or intent.state not in (IntentState.INTENT, IntentState.FAILED)
    )
    return undecided or account.aws_account_id is not None


async def _check_email_open(session: AsyncSession, account: Account) -> None:
    """An account is found by its e-mail after a crash: it is final from the first call that may have counted."""
    if await _may_be_in_aws(session, account):
        raise refuse(
            UserErrorCode.PROTECTED,
            "The e-mail can be changed only while it is certain that AWS has not made the account, which is found by "
            "it; retry the setup if it has failed. Once AWS has the account, its root user changes the e-mail there.",
            "email",
        )


async def _account(session: AsyncSession, tenancy_id: UUID, account_id: UUID, *, lock: bool = True) -> Account:
    statement = select(Account).where(Account.tenancy_id == tenancy_id, Account.id == account_id)
    if lock:
        statement = statement.with_for_update(key_share=True)
    account = (await session.scalars(statement)).one_or_none()
    if account is None:
        raise refuse(UserErrorCode.NOT_FOUND, "There is no account with this id.", "accountId")
    return account


async def _account_type(session: AsyncSession, tenancy_id: UUID, account_type_id: UUID) -> AccountType:
    """The type, locked so that nobody deletes it before the transaction ends."""
    found = select(AccountType).where(AccountType.tenancy_id == tenancy_id, AccountType.id == account_type_id)
    account_type = (await session.scalars(found.with_for_update(read=True, key_share=True))).one_or_none()
    return usable(account_type, "accountTypeId")
