"""The account created in AWS, exactly once.

organizations:CreateAccount cannot be repeated safely: it takes no token by which AWS would know a repetition. So the
intent to call is written first (`CreateIntent`), CALLING is committed before the call, and the call is sent once. A
later attempt that finds CALLING knows only that AWS may have heard of it: it looks for the account, waits until the
call cannot arrive any more, looks again, and only then calls again.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.models import Account
from server.assurance.models import LIVE, CreateIntent, IntentState, Setup
from server.leases import StageErrorClass
from server.policies.service import wake_attached
from server.tenancies.models import Tenancy
from workers.assurance import creation
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, StageStopped, finding, wait
from workers.assurance.tenancy import initializing
from workers.aws.errors import explain, explain_failure, is_outcome_unknown
from workers.aws.session import CALL_SECONDS, CONCURRENT_CREATIONS, QUARANTINE_SECONDS
from workers.aws.turns import organization_turn
from workers.setups import ACKNOWLEDGED_SECONDS, is_asked, is_recent, wake_next_creation

# For so long an account of ours is looked for whose e-mail AWS says is in use, and how often.
EMAIL_SECONDS, EMAIL_AGAIN_SECONDS = 600.0, 20.0
# An account has been made by no call for an e-mail that AWS does not take, or has given to somebody else's.
NOTHING_MADE = ("EMAIL_ALREADY_EXISTS", "INVALID_EMAIL")
# How long to ask for the outcome before the setup waits, and how often: AWS takes from seconds to minutes.
ASK_SECONDS = 45.0
FIRST_ASK_SECONDS, LONGEST_ASK_SECONDS, ASK_AGAIN_SECONDS = 0.2, 3.0, 5.0
SLOT_SECONDS = 2.0
FIRST_LOOK_SECONDS = 2.0


async def check(run: Run) -> Sequence[Finding]:
    number = run.account.aws_account_id
    return [finding(number is not None, f"the account is {number} in AWS" if number else "AWS has no such account yet")]


async def apply(run: Run) -> None:
    if run.tenancy.aws_organization_id is None:
        raise initializing(run.tenancy)
    intent = await _declare(run)
    if intent.state is IntentState.CALLING:
        intent = await _reconcile(run, intent)
    if intent.state is IntentState.INTENT:
        intent = await _call(run, intent)
    if intent.state is IntentState.REQUESTED:
        async with run.lease.aside():
            await _await_outcome(run, intent)


async def _declare(run: Run) -> CreateIntent:
    """The account's intent; one that AWS has refused starts over with the account's name and e-mail of now."""
    async with run.write() as session:
        intent = await session.get(CreateIntent, run.account.id)
        if intent is None:
            intent = CreateIntent(account_id=run.account.id, tenancy_id=run.tenancy.id, calls=0)
            session.add(intent)
        elif intent.state not in (IntentState.INTENT, IntentState.FAILED):
            return intent
        intent.state, intent.email = IntentState.INTENT, run.account.email
        if not intent.outcome_unknown:
            # Otherwise a call may have made the account, which is known by the name of then; a later stage renames it.
            intent.account_name = run.account.name
    return intent


async def _reconcile(run: Run, intent: CreateIntent) -> CreateIntent:
    """Find out what became of a call whose answer nobody has; raises StageStopped while that cannot be known."""
    age = await _age(run, intent)
    found = await creation.find_request(run, intent)
    if found is not None:
        return await _requested(run, found, answered=False)
    account_id = await creation.find_account(run, intent)
    if account_id is not None:
        return await _done(run, intent, account_id)
    if age < QUARANTINE_SECONDS:
        raise _outcome_unknown(QUARANTINE_SECONDS - age)
    # If AWS refused the call, it refuses the next one too, with an answer that is certainly ours.
    return await _set_aside(run, IntentState.INTENT, outcome_unknown=True)


async def _call(run: Run, intent: CreateIntent) -> CreateIntent:
    """Call, unless AWS creates as many accounts as it takes at a time: StageStopped is raised then."""
    async with (
        organization_turn(run.engine, run.aws, run.tenancy.id),
        run.aws.client("organizations", run.tenancy.home_region, once=True) as organizations,
    ):
        await run.lease.renew()
        async with run.write() as session:
            if not await _take_slot(session, run):
                raise _queued()
            intent = await _mine(session, run)
            intent.state, intent.calls = IntentState.CALLING, intent.calls + 1
            intent.called_at = (await session.execute(select(func.clock_timestamp()))).scalar_one()
        # Nobody else may hold the lease before this call has ended.
        run.lease.check(margin=CALL_SECONDS)
        try:
            answer = await organizations.create_account(Email=intent.email, AccountName=intent.account_name)
        except Exception as error:
            await _note_refusal(run, error)
            raise
    return await _requested(run, answer["CreateAccountStatus"]["Id"], answered=True)


async def _note_refusal(run: Run, error: Exception) -> None:
    """Write down what the failed call tells of its outcome; raises StageStopped when it tells nothing."""
    if is_outcome_unknown(error):
        raise _outcome_unknown(FIRST_LOOK_SECONDS) from error
    refusal = explain(error, _facts(run))
    if refusal is None:
        # Not an answer of AWS: let the next attempt look whether it heard the call.
        return
    transient = refusal.error_class is StageErrorClass.TRANSIENT
    async with run.write() as session:
        (await _mine(session, run)).state = IntentState.INTENT if transient else IntentState.FAILED


async def _await_outcome(run: Run, intent: CreateIntent) -> None:
    """Ask AWS until the request has ended; raises StageStopped when it failed, or takes long."""
    assert intent.request_id is not None, "REQUESTED is stored with the id of the request"
    until = time.monotonic() + ASK_SECONDS
    pause = FIRST_ASK_SECONDS
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        while time.monotonic() < until:
            try:
                answer = await organizations.describe_create_account_status(CreateAccountRequestId=intent.request_id)
            except organizations.exceptions.CreateAccountStatusNotFoundException as error:
                raise await _not_shown(run, intent) from error
            status = answer["CreateAccountStatus"]
            if status.get("State") == "SUCCEEDED":
                await _succeeded(run, intent, status["AccountId"])
                return
            if status.get("State") == "FAILED":
                await _failed(run, intent, str(status.get("FailureReason")))
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_ASK_SECONDS)
    raise wait("CREATE_ACCOUNT_IN_PROGRESS", "AWS is still creating the account.", ASK_AGAIN_SECONDS)


async def _not_shown(run: Run, intent: CreateIntent) -> StageStopped:
    """What to do about a request that AWS does not show: AWS acknowledged it, so it is most likely still at work."""
    if await _age(run, intent) < ACKNOWLEDGED_SECONDS:
        return _outcome_unknown(ASK_AGAIN_SECONDS)
    async with run.write() as session:
        # With its request: should AWS list it, it is the one that is looked for.
        (await _mine(session, run)).state = IntentState.CALLING
    return _outcome_unknown(FIRST_LOOK_SECONDS)


async def _succeeded(run: Run, intent: CreateIntent, account_id: str) -> None:
    """Take the account, unless the request, found by its name, turns out to have been somebody else's."""
    ours = intent.request_answered or await creation.is_ours(run, intent, account_id)
    if ours:
        await _done(run, intent, account_id)
        return
    if ours is None and await _age(run, intent) < ACKNOWLEDGED_SECONDS:
        raise _outcome_unknown(ASK_AGAIN_SECONDS)
    await _set_aside(run, IntentState.CALLING)
    raise _outcome_unknown(FIRST_LOOK_SECONDS)


async def _failed(run: Run, intent: CreateIntent, reason: str) -> None:
    """Adopt the account if a call of ours made it; otherwise write the refusal down and raise it."""
    may_be_ours = reason == "EMAIL_ALREADY_EXISTS" and intent.outcome_unknown
    if may_be_ours or not intent.request_answered:
        account_id = await creation.find_account(run, intent)
        if account_id is not None:
            await _done(run, intent, account_id)
            return
    if not intent.request_answered:
        # Nothing tells whose request it was that was found by its name and refused: its reason is nobody's to report.
        await _set_aside(run, IntentState.CALLING)
        raise _outcome_unknown(FIRST_LOOK_SECONDS)
    if may_be_ours and await _age(run, intent) < EMAIL_SECONDS:
        raise wait(
            "CREATE_ACCOUNT_EMAIL_IN_USE",
            f"AWS has an account with the e-mail {intent.email}, which an earlier call of Freehold may have made. "
            "Freehold looks for it in the organization for some minutes.",
            EMAIL_AGAIN_SECONDS,
        )
    error = explain_failure(reason, _facts(run))
    if reason == "CONCURRENT_ACCOUNT_MODIFICATION":
        # AWS is at work on a request just like this one, which can only be our own.
        state = IntentState.CALLING
    else:
        state = IntentState.INTENT if error.error_class is StageErrorClass.TRANSIENT else IntentState.FAILED
    await _set_aside(run, state, outcome_unknown=False if reason in NOTHING_MADE else None)
    raise StageStopped(error)


async def _set_aside(run: Run, state: IntentState, *, outcome_unknown: bool | None = None) -> CreateIntent:
    """Go on without the request, which is not to be taken for that of a later call.

    `outcome_unknown`: whether a call may have made an account that is not looked for any more; None if that is as it
    was before.
    """
    async with run.write() as session:
        intent = await _mine(session, run)
        if outcome_unknown is not None:
            intent.outcome_unknown = outcome_unknown
        if intent.request_id is not None:
            intent.past_requests = [*intent.past_requests, intent.request_id]
        intent.request_id, intent.state = None, state
    return intent


async def _requested(run: Run, request_id: str, *, answered: bool) -> CreateIntent:
    """`answered`: AWS gave the id in answer to our call; without that it may be of somebody else's."""
    async with run.write() as session:
        intent = await _mine(session, run)
        if intent.request_id != request_id:
            intent.request_id, intent.request_answered = request_id, answered
        intent.state = IntentState.REQUESTED
    return intent


async def _done(run: Run, intent: CreateIntent, account_id: str) -> CreateIntent:
    async with run.write() as session:
        intent = await _mine(session, run)
        intent.state = IntentState.DONE
        (await session.get_one(Account, run.account.id)).aws_account_id = account_id
        await wake_next_creation(session, run.tenancy.id, run.lease.row_id)
        await session.flush()
        await wake_attached(session, run.tenancy.id, account_id=run.account.id)
    return intent


async def _mine(session: AsyncSession, run: Run) -> CreateIntent:
    return await session.get_one(CreateIntent, run.account.id)


async def _take_slot(session: AsyncSession, run: Run) -> bool:
    """Whether the creations under way in the organization, by whatever worker, are fewer than AWS allows (AWS
    Organizations User Guide, "Quotas": concurrent account creations); nobody else counts until the commit.
    """
    await session.scalars(select(Tenancy).where(Tenancy.id == run.tenancy.id).with_for_update(key_share=True))
    at_work = exists().where(Setup.account_id == CreateIntent.account_id, Setup.status.in_(LIVE))
    # Nobody looks what became of those whose setup has failed, so they count for as long as they may take.
    under_way = await session.scalar(
        select(func.count()).where(
            CreateIntent.tenancy_id == run.tenancy.id,
            CreateIntent.account_id != run.account.id,
            is_asked(),
            or_(at_work, is_recent(func.clock_timestamp())),
        )
    )
    return (under_way or 0) < CONCURRENT_CREATIONS


async def _age(run: Run, intent: CreateIntent) -> float:
    """Seconds since the call, by PostgreSQL's clock, which also timed the call."""
    async with run.read() as session:
        now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return QUARANTINE_SECONDS if intent.called_at is None else (now - intent.called_at) / timedelta(seconds=1)


def _queued() -> StageStopped:
    """Rare: a setup is taken up when it has a turn, but another may have come up at the same moment."""
    return wait(
        "CREATE_ACCOUNT_QUEUED",
        f"AWS creates {CONCURRENT_CREATIONS} accounts of an organization at a time; this one is next.",
        SLOT_SECONDS,
    )


def _outcome_unknown(seconds: float) -> StageStopped:
    return wait(
        "CREATE_ACCOUNT_OUTCOME_UNKNOWN",
        "The answer of AWS to CreateAccount was lost. Freehold looks whether the account was created before it asks "
        "again.",
        seconds,
    )


def _facts(run: Run) -> dict[str, str]:
    return {"name": run.account.name, "email": run.account.email}


STAGE = Stage(
    name="create_account",
    title="AWS account",
    description="Creates the account in the organization, exactly once.",
    permissions=(
        "organizations:CreateAccount",
        "organizations:DescribeCreateAccountStatus",
        "organizations:ListAccounts",
        "organizations:ListCreateAccountStatus",
    ),
    check=check,
    apply=apply,
)
