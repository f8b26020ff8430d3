"""The rules of setups: how one begins, how its stages change, and the event that every change leaves.

Every function works inside the caller's transaction. Locks are always taken in the order setup, account, tenancy.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.models import Account, AccountRole, AccountStatus
from server.assurance.models import (
    FIRST,
    LIVE,
    OVER,
    CreateIntent,
    Setup,
    SetupKind,
    SetupStatus,
    Stage,
    StageDefinition,
    StageStatus,
)
from server.errors import Refused, UserErrorCode, refuse
from server.jobs import EVENT_CHANNEL, Job, enqueue
from server.leases import LeaseLost, StageError
from server.tenancies.models import Tenancy, TenancyState

FOUNDATION_ROLES = (AccountRole.MANAGEMENT, AccountRole.SECURITY, AccountRole.LOGGING)


async def begin_setup(session: AsyncSession, account: Account, kind: SetupKind) -> Setup:
    """Begin a setup of the account: its stages, its first event and the job that runs it.

    What governance wants of the account is then no longer due. A GOVERN setup ends with what a setup that failed before
    it left undone, as only the latest setup can be retried.

    Raises Refused: SETUP_IN_PROGRESS while another is live, NOT_READY when no worker has ever declared its stages.
    """
    latest = await lock_latest_setup(session, account.tenancy_id, account.id)
    if latest is not None and latest.status in LIVE:
        raise setup_in_progress(account)
    wanted = select(StageDefinition).where(StageDefinition.roles.contains([account.role.value]))
    if kind is SetupKind.GOVERN:
        undone = [] if latest is None or latest.status is not SetupStatus.FAILED else await _undone(session, latest)
        is_undone = StageDefinition.name.in_([stage.name for stage in undone])
        wanted = wanted.where(or_(StageDefinition.governs, is_undone))
    definitions = (await session.scalars(wanted.order_by(StageDefinition.position))).all()
    if not definitions:
        raise refuse(
            UserErrorCode.NOT_READY,
            "No worker has started in this installation yet, so the stages of a setup are not known; start one first.",
        )
    setup = Setup(tenancy_id=account.tenancy_id, account_id=account.id, kind=kind)
    session.add(setup)
    await session.flush()
    session.add_all(
        Stage(
            setup_id=setup.id,
            tenancy_id=setup.tenancy_id,
            position=position,
            name=definition.name,
            title=definition.title,
            controls=definition.controls,
        )
        for position, definition in enumerate(definitions, start=1)
    )
    await session.flush()
    await session.execute(
        update(Account)
        .where(Account.id == account.id, Account.governance_due_at.is_not(None))
        .values(governance_due_at=None, updated_at=Account.updated_at)
        .execution_options(synchronize_session=False)
    )
    await record_event(session, setup)
    await enqueue(session, setup.tenancy_id, Job.RUN_SETUP, setup.id)
    return setup


async def _undone(session: AsyncSession, setup: Setup) -> list[Stage]:
    return [stage for stage in (await _stages(session, setup.id)).values() if stage.status not in OVER]


def setup_in_progress(account: Account) -> Refused:
    return refuse(
        UserErrorCode.SETUP_IN_PROGRESS,
        f"A setup of the account {account.name!r} is in progress; try again when it has finished.",
    )


async def record_event(session: AsyncSession, setup: Setup, position: int | None = None) -> int:
    """Write the account's next event: account, setup and the stage at `position` as they are in this transaction.

    The row lock on the account makes the numbers gapless and equal to commit order. Returns the number.
    """
    return await _record(session, setup.tenancy_id, setup.account_id, setup.id, position)


async def record_change(session: AsyncSession, account: Account, latest: Setup | None) -> int:
    """Write the account's next event, of a change that no setup has a part in; `latest` is its latest setup, if any."""
    return await _record(session, account.tenancy_id, account.id, None if latest is None else latest.id, None)


async def _record(
    session: AsyncSession, tenancy_id: UUID, account_id: UUID, setup_id: UUID | None, position: int | None
) -> int:
    await session.flush()
    sequence: int = (
        await session.execute(
            text(
                """
                WITH numbered AS (
                    UPDATE account SET last_seq = last_seq + 1
                    WHERE tenancy_id = :tenancy AND id = :account RETURNING *
                )
                INSERT INTO event (account_id, sequence, tenancy_id, account, setup, stage)
                SELECT numbered.id, numbered.last_seq, numbered.tenancy_id, to_jsonb(numbered), to_jsonb(setup),
                       (SELECT to_jsonb(stage) FROM stage WHERE setup_id = setup.id AND position = :position)
                FROM numbered LEFT JOIN setup ON setup.tenancy_id = numbered.tenancy_id AND setup.id = :setup
                RETURNING sequence
                """
            ),
            {"tenancy": tenancy_id, "account": account_id, "setup": setup_id, "position": position},
        )
    ).scalar_one()
    await session.execute(
        text("SELECT pg_notify(:channel, :hint)"), {"channel": EVENT_CHANNEL, "hint": f"{tenancy_id} {account_id}"}
    )
    return sequence


async def hold(session: AsyncSession, setup_id: UUID, token: int) -> Setup:
    """Lock the setup for a write by the holder of `token`; raises LeaseLost when the lease has moved on.

    The first statement of every transaction in which a worker writes: a worker that was presumed dead writes nothing.
    """
    setup = (
        await session.scalars(select(Setup).where(Setup.id == setup_id, Setup.lease_token == token).with_for_update())
    ).one_or_none()
    if setup is None or setup.status not in LIVE:
        raise LeaseLost(f"setup {setup_id}: lease {token} is no longer current")
    return setup


async def start_stage(session: AsyncSession, setup: Setup, position: int) -> None:
    """The stage is RUNNING, one attempt more than before, and so is its setup."""
    now = func.clock_timestamp()
    await _change_stage(
        session,
        setup,
        position,
        status=StageStatus.RUNNING,
        attempts=Stage.attempts + 1,
        started_at=func.coalesce(Stage.started_at, now),
        next_attempt_at=None,
    )
    setup.status = SetupStatus.RUNNING
    if setup.started_at is None:
        setup.started_at = await session.scalar(select(now))
    await record_event(session, setup, position)


async def complete_stage(session: AsyncSession, setup: Setup, position: int) -> bool:
    """The stage is COMPLETED; with the last one the setup is too, and the account ACTIVE. Returns whether it was."""
    await _change_stage(
        session,
        setup,
        position,
        status=StageStatus.COMPLETED,
        finished_at=func.clock_timestamp(),
        error_code=None,
        error_message=None,
        error_class=None,
        error_aws_request_id=None,
    )
    unfinished = await session.scalar(select(func.count()).where(Stage.setup_id == setup.id, Stage.status.not_in(OVER)))
    if unfinished == 0:
        await _finish(session, setup, SetupStatus.COMPLETED)
        await _set_account_status(session, setup, AccountStatus.ACTIVE)
        await _open_tenancy(session, setup.tenancy_id)
    await record_event(session, setup, position)
    return unfinished == 0


async def fail_stage(session: AsyncSession, setup: Setup, position: int, error: StageError) -> None:
    """The stage and its setup are FAILED until somebody retries; an account that never was ACTIVE shows ERROR."""
    await _change_stage(
        session,
        setup,
        position,
        status=StageStatus.FAILED,
        finished_at=func.clock_timestamp(),
        next_attempt_at=None,
        **error.columns,
    )
    await _finish(session, setup, SetupStatus.FAILED)
    if setup.kind in FIRST:
        await _set_account_status(session, setup, AccountStatus.ERROR)
    await record_event(session, setup, position)


async def wait_stage(
    session: AsyncSession, setup: Setup, position: int, error: StageError, delay: timedelta
) -> datetime:
    """The stage is WAITING and its setup gives up its lease; returns when the next attempt is due."""
    due: datetime = (await session.execute(select(func.clock_timestamp() + delay))).scalar_one()
    await _change_stage(session, setup, position, status=StageStatus.WAITING, next_attempt_at=due, **error.columns)
    setup.status = SetupStatus.WAITING
    setup.next_attempt_at = due
    setup.lease_owner = setup.lease_until = None
    await record_event(session, setup, position)
    return due


async def lock_latest_setup(session: AsyncSession, tenancy_id: UUID, account_id: UUID) -> Setup | None:
    """The account's latest setup, locked; whoever changes the account or its setup takes this lock first."""
    return (
        await session.scalars(
            select(Setup)
            .where(Setup.tenancy_id == tenancy_id, Setup.account_id == account_id)
            .order_by(Setup.requested_at.desc(), Setup.id.desc())
            .limit(1)
            .with_for_update()
        )
    ).one_or_none()


async def retry_setup(session: AsyncSession, account: Account, stage_name: str | None = None) -> Setup:
    """Retry the failed stages of the account's latest setup, or the one named; stages that completed stay so.

    Raises Refused: SETUP_IN_PROGRESS, NOTHING_TO_RETRY, or NOT_FOUND for a stage that the setup does not have.
    """
    setup = await lock_latest_setup(session, account.tenancy_id, account.id)
    if setup is not None and setup.status in LIVE:
        raise setup_in_progress(account)
    if setup is not None and setup.status is SetupStatus.CANCELLED:
        raise refuse(
            UserErrorCode.NOTHING_TO_RETRY,
            f"The setup of {account.name!r} was cancelled; to create the account after all, ask for it anew.",
        )
    stages = {} if setup is None else await _stages(session, setup.id)
    if stage_name is not None and stage_name not in stages:
        raise refuse(
            UserErrorCode.NOT_FOUND,
            f"The setup has no stage {stage_name!r}; its stages are {', '.join(stages)}.",
            "stage",
        )
    failed = [
        stage for stage in stages.values() if stage.status is StageStatus.FAILED and stage_name in (None, stage.name)
    ]
    if setup is None or not failed:
        raise refuse(
            UserErrorCode.NOTHING_TO_RETRY,
            f"No stage of the latest setup of {account.name!r} has failed."
            if stage_name is None
            else f"The stage {stage_name!r} has not failed.",
            *(() if stage_name is None else ("stage",)),
        )
    for stage in failed:
        stage.status = StageStatus.PENDING
        stage.finished_at = stage.next_attempt_at = None
    setup.status = SetupStatus.PENDING
    setup.finished_at = setup.lease_owner = setup.lease_until = None
    if setup.kind in FIRST:
        await _set_account_status(session, setup, AccountStatus.INITIALIZING)
    await _take_up_again(session, setup, failed[0].position)
    return setup


async def repeat_stage(session: AsyncSession, setup: Setup, name: str) -> bool:
    """Have a setup that waits repeat a stage that it has completed, at once; False when there is none to repeat."""
    stage = (await _stages(session, setup.id)).get(name)
    if setup.status is not SetupStatus.WAITING or stage is None or stage.status is not StageStatus.COMPLETED:
        return False
    stage.status = StageStatus.PENDING
    stage.finished_at = None
    await _take_up_again(session, setup, stage.position)
    return True


async def cancel_setup(session: AsyncSession, setup: Setup) -> None:
    """The setup, those of its stages that are not over, and its account are CANCELLED, for good.

    The setup is locked, and live or FAILED, and AWS has not made its account: the caller has seen to that.
    """
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    cancelled = await _undone(session, setup)
    for stage in cancelled:
        stage.next_attempt_at = None
        if stage.started_at is not None and stage.status is not StageStatus.FAILED:
            stage.finished_at = now
        stage.status = StageStatus.CANCELLED
    # A worker may be at work on it: the next write of that one loses its lease, before it could call AWS.
    setup.lease_token += 1
    await _finish(session, setup, SetupStatus.CANCELLED)
    # It would hold its name and e-mail back from the intents of other accounts.
    await session.execute(delete(CreateIntent).where(CreateIntent.account_id == setup.account_id))
    await _set_account_status(session, setup, AccountStatus.CANCELLED)
    # Where the setup stood.
    await record_event(session, setup, cancelled[0].position)


async def wake_waiting(session: AsyncSession, tenancy_id: UUID) -> None:
    """Make every waiting setup of the tenancy due at once; for when what they wait for has just come true."""
    woken = await session.scalars(
        update(Setup)
        .where(Setup.tenancy_id == tenancy_id, Setup.status == SetupStatus.WAITING)
        .values(next_attempt_at=func.now(), hint_number=Setup.hint_number + 1)
        .returning(Setup)
        .execution_options(synchronize_session=False)
    )
    for setup in woken.all():
        await _wake(session, setup)


async def _take_up_again(session: AsyncSession, setup: Setup, position: int) -> None:
    """The setup is due now; what has changed of the stage at `position` is an event."""
    setup.next_attempt_at = (await session.execute(select(func.now()))).scalar_one()
    setup.hint_number += 1
    await record_event(session, setup, position)
    await _wake(session, setup)


async def _wake(session: AsyncSession, setup: Setup) -> None:
    attempt = f"{setup.lease_token}.{setup.hint_number}"
    await enqueue(session, setup.tenancy_id, Job.RUN_SETUP, setup.id, attempt=attempt)


async def _stages(session: AsyncSession, setup_id: UUID) -> dict[str, Stage]:
    rows = await session.scalars(select(Stage).where(Stage.setup_id == setup_id).order_by(Stage.position))
    return {stage.name: stage for stage in rows}


async def _change_stage(session: AsyncSession, setup: Setup, position: int, **values: object) -> None:
    await session.execute(
        update(Stage)
        .where(Stage.setup_id == setup.id, Stage.position == position)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


async def _finish(session: AsyncSession, setup: Setup, status: SetupStatus) -> None:
    setup.status = status
    setup.finished_at = await session.scalar(select(func.clock_timestamp()))
    setup.lease_owner = setup.lease_until = None


async def _set_account_status(session: AsyncSession, setup: Setup, status: AccountStatus) -> None:
    await session.flush()
    await session.execute(
        update(Account)
        .where(Account.tenancy_id == setup.tenancy_id, Account.id == setup.account_id, Account.status != status)
        .values(status=status)
        .execution_options(synchronize_session=False)
    )


async def _open_tenancy(session: AsyncSession, tenancy_id: UUID) -> None:
    """The tenancy is ACTIVE once its management, Security and Logging accounts are."""
    # The lock makes two foundation accounts that finish at once see each other.
    tenancy = (
        await session.scalars(
            select(Tenancy)
            .where(Tenancy.id == tenancy_id, Tenancy.state == TenancyState.INITIALIZING)
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if tenancy is None:
        return
    active = await session.scalar(
        select(func.count()).where(
            Account.tenancy_id == tenancy_id,
            Account.role.in_(FOUNDATION_ROLES),
            Account.status == AccountStatus.ACTIVE,
        )
    )
    if active == len(FOUNDATION_ROLES):
        tenancy.state = TenancyState.ACTIVE
