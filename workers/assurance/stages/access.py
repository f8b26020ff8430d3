"""The IAM roles of groups in the account: exactly those that account types grant, as Freehold makes them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from sqlalchemy import and_, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.access.models import ACCOUNT, AccessState, AccountAccess, Group
from server.accounts.models import Account, AccountRole
from server.leases import StageError, StageErrorClass
from workers.assurance import roles
from workers.assurance.roles import NameTaken, PolicyMissing, Wanted, role_name
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, StageStopped, finding, wait
from workers.aws.errors import explain

if TYPE_CHECKING:
    from types_aiobotocore_iam import IAMClient

# IAM User Guide, "Troubleshoot IAM": changes are not seen everywhere at once.
NOT_SEEN = "IAM does not show a role that it has listed or made; Freehold tries again by itself."
# So many of the roles that AWS refuses are told by the setup; `account.access` tells of each.
MOST_TOLD = 3
GRANTED = (AccessState.PENDING, AccessState.ACTIVE, AccessState.FAILED)


async def check(run: Run) -> Sequence[Finding]:
    wanted = await wanted_roles(run, *GRANTED)
    unsettled = await _unsettled(run)
    findings = [finding(unsettled == 0, f"{unsettled} changes of access are not noted as done")]
    async with _iam(run) as iam:
        paths = await roles.paths(iam)
        findings += [
            finding(False, f"nobody is granted the role {paths[name]}{name}") for name in _strangers(paths, wanted)
        ]
        for each in wanted:
            faults = await roles.faults(iam, each) if paths.get(each.name) == roles.PATH else ["there is none"]
            findings.append(finding(not faults, f"the role {each.name}: {'; '.join(faults) or 'as it should be'}"))
    return findings


async def apply(run: Run) -> None:
    wanted = await wanted_roles(run, *GRANTED)
    refused: dict[str, StageError] = {}
    async with _iam(run) as iam:
        paths = await roles.paths(iam)
        # First of all those who should not be there are kept out.
        kept = await roles.delete(iam, _strangers(paths, wanted))
        for each in wanted:
            error = await _make(iam, each, is_listed=paths.get(each.name) == roles.PATH)
            if error is not None:
                refused[each.name] = error
    await _note(run, wanted, refused)
    stop({**refusals(kept), **refused})


@asynccontextmanager
async def _iam(run: Run) -> "AsyncIterator[IAMClient]":
    """IAM of the account; what it does not show yet is waited for."""
    async with run.member("iam") as iam:
        try:
            yield iam
        except iam.exceptions.NoSuchEntityException as error:
            raise wait("NoSuchEntity", NOT_SEEN) from error


def _strangers(paths: Mapping[str, str], wanted: Sequence[Wanted]) -> list[str]:
    """The roles that nobody is granted, among them those of a granted name further below the path."""
    names = {each.name for each in wanted}
    return sorted(name for name, path in paths.items() if path != roles.PATH or name not in names)


async def _make(iam: "IAMClient", wanted: Wanted, *, is_listed: bool) -> StageError | None:
    """Make the role; returns why not, where that is a fault of this role alone and does not pass by itself."""
    try:
        await roles.make(iam, wanted, is_listed=is_listed)
    except PolicyMissing:
        of_aws = ACCOUNT not in wanted.managed_policy_arn
        advice = (
            "AWS has no managed policy {}. Grant"
            if of_aws
            else "The account has no managed policy {}. Create it there, or grant"
        )
        message = f"{advice.format(wanted.policy_arn)} the group another policy, and retry the setup."
        return StageError("NoSuchEntity", message, StageErrorClass.NEEDS_PERSON)
    except NameTaken:
        message = (
            f"The account has a role {wanted.name} that is not Freehold's, as it does not lie under {roles.PATH}. "
            "Delete it there, and retry the setup."
        )
        return StageError("EntityAlreadyExists", message, StageErrorClass.NEEDS_PERSON)
    except iam.exceptions.NoSuchEntityException:
        raise
    except ClientError as error:
        return refusals({wanted.name: error})[wanted.name]
    return None


def refusals(errors: Mapping[str, ClientError]) -> dict[str, StageError]:
    """What AWS refuses of each role; raises an error that passes by itself, as the stage is then tried again."""
    refused: dict[str, StageError] = {}
    for name, error in errors.items():
        told = explain(error, {"name": name, "email": ""})
        if told is None or told.error_class is StageErrorClass.TRANSIENT:
            raise error
        refused[name] = replace(told, message=f"The role {name}: {told.message}")
    return refused


def stop(refused: Mapping[str, StageError]) -> None:
    """Raise what AWS refuses of several roles as one error, if there is any."""
    errors = [*refused.values()]
    if not errors:
        return
    told = [error.message for error in errors[:MOST_TOLD]]
    if len(errors) > MOST_TOLD:
        told.append(f"AWS refuses {len(errors) - MOST_TOLD} roles more; the account's `access` tells of each.")
    summary = StageError(errors[0].code, " ".join(told), StageErrorClass.NEEDS_PERSON, errors[0].aws_request_id)
    raise StageStopped(summary)


async def wanted_roles(run: Run, *states: AccessState) -> list[Wanted]:
    """The roles that groups are to have in the account, those in one of the states."""
    rows = (
        select(AccountAccess, Group.slug)
        .join(Group, and_(Group.tenancy_id == AccountAccess.tenancy_id, Group.id == AccountAccess.group_id))
        .where(*of_account(run), AccountAccess.state.in_(states))
        .order_by(Group.slug, AccountAccess.role)
    )
    of_management = select(Account.aws_account_id).where(
        Account.tenancy_id == run.tenancy.id, Account.role == AccountRole.MANAGEMENT
    )
    async with run.read() as session:
        management = (await session.execute(of_management)).scalar_one()
        found = (await session.execute(rows)).all()
    principal = f"arn:{run.aws.partition(run.tenancy.home_region)}:iam::{management}:root"
    return [_as_wanted(run, access, slug, principal) for access, slug in found]


def _as_wanted(run: Run, access: AccountAccess, slug: str, principal: str) -> Wanted:
    group = f"grp_{access.group_id.hex}"
    return Wanted(
        access.group_id,
        access.role,
        role_name(access.role, slug),
        access.managed_policy_arn,
        access.managed_policy_arn.replace(ACCOUNT, run.aws_account_id),
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": principal},
                    "Action": "sts:AssumeRole",
                    "Condition": {"StringEquals": {"sts:ExternalId": group}},
                }
            ],
        },
        {"freehold:group": group, "freehold:role": access.role.value},
    )


async def _unsettled(run: Run) -> int:
    changes = select(func.count()).where(*of_account(run), AccountAccess.state != AccessState.ACTIVE)
    async with run.read() as session:
        return (await session.execute(changes)).scalar_one()


async def _note(run: Run, wanted: Sequence[Wanted], refused: Mapping[str, StageError]) -> None:
    """Write down what is done; a row that was changed meanwhile stays as it is, and its account is due again."""
    mine = and_(*of_account(run))
    made = [(each.group_id, each.role) for each in wanted]
    async with writing(run) as session:
        await session.execute(
            delete(AccountAccess)
            .where(
                mine,
                AccountAccess.state == AccessState.REMOVING,
                tuple_(AccountAccess.group_id, AccountAccess.role).not_in(made),
            )
            .execution_options(synchronize_session=False)
        )
        for each in wanted:
            error = refused.get(each.name)
            state = AccessState.ACTIVE if error is None else AccessState.FAILED
            await session.execute(
                update(AccountAccess)
                .where(
                    mine,
                    AccountAccess.group_id == each.group_id,
                    AccountAccess.role == each.role,
                    AccountAccess.managed_policy_arn == each.managed_policy_arn,
                    AccountAccess.state != AccessState.REMOVING,
                )
                .values(state=state, error=None if error is None else error.message)
                .execution_options(synchronize_session=False)
            )


@asynccontextmanager
async def writing(run: Run) -> AsyncIterator[AsyncSession]:
    """A transaction of the lease that writes rows of AccountAccess: with the account locked, as who grants locks it."""
    locked = select(Account.id).where(Account.tenancy_id == run.tenancy.id, Account.id == run.account.id)
    async with run.write() as session:
        await session.execute(locked.with_for_update(key_share=True))
        yield session


def of_account(run: Run) -> tuple[Any, ...]:
    """Whose rows of AccountAccess are meant."""
    return AccountAccess.tenancy_id == run.tenancy.id, AccountAccess.account_id == run.account.id


STAGE = Stage(
    name="access",
    title="Access of groups",
    description="Makes the IAM roles of the groups with access to the account, and removes those of all others.",
    permissions=tuple(sorted({*roles.MAKE_PERMISSIONS, *roles.DELETE_PERMISSIONS, "iam:ListRoles", "sts:AssumeRole"})),
    check=check,
    apply=apply,
    governs=True,
)
