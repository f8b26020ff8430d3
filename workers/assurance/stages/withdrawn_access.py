"""The IAM roles of groups that have lost access to the account: removed before anything else is done there.

A setup may fail or wait at any later stage, and who has lost access is not to keep it until that is mended. A role that
gets another policy loses the one that it had here, and gets the other one last.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import and_, delete, select, tuple_, update

from server.access.models import WITHDRAWAL, AccessRole, AccessState, AccountAccess, Group
from server.assurance.models import FIRST
from workers.assurance import roles
from workers.assurance.roles import Wanted
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, finding
from workers.assurance.stages.access import of_account, refusals, stop, wanted_roles, writing


async def check(run: Run) -> Sequence[Finding]:
    names = sorted(await _withdrawn(run))
    findings = [finding(not names, f"to be removed: {', '.join(names) or 'no role'}")]
    if changed := await _changed(run):
        async with run.member("iam") as iam:
            for each in _listed(changed, await roles.paths(iam)):
                excess = sorted(await roles.excess(iam, each))
                findings.append(finding(not excess, f"the role {each.name} loses {', '.join(excess) or 'nothing'}"))
    return findings


async def apply(run: Run) -> None:
    withdrawn = await _withdrawn(run)
    async with run.member("iam") as iam:
        paths = await roles.paths(iam)
        kept = await roles.delete(iam, sorted(withdrawn.keys() & paths.keys()))
        for each in _listed(await _changed(run), paths):
            await roles.strip(iam, each.name, but=each.policy_arn)
    gone = [key for name, key in withdrawn.items() if name not in kept]
    refused = refusals(kept)
    # A role that was granted again meanwhile is made anew by the last stage, or by the setup that this asks for.
    removing = and_(*of_account(run), AccountAccess.state == AccessState.REMOVING)
    key = tuple_(AccountAccess.group_id, AccountAccess.role)
    async with writing(run) as session:
        await session.execute(
            delete(AccountAccess).where(removing, key.in_(gone)).execution_options(synchronize_session=False)
        )
        for name, error in refused.items():
            told = update(AccountAccess).where(removing, key == withdrawn[name]).values(error=error.message)
            await session.execute(told.execution_options(synchronize_session=False))
    stop(refused)


async def _changed(run: Run) -> list[Wanted]:
    """The roles that may be in AWS with another policy; of an account that is new there are none."""
    return [] if run.kind in FIRST else await wanted_roles(run, AccessState.PENDING)


def _listed(wanted: Sequence[Wanted], paths: Collection[str]) -> list[Wanted]:
    return [each for each in wanted if each.name in paths]


async def _withdrawn(run: Run) -> dict[str, tuple[UUID, AccessRole]]:
    """The roles to be removed, by their names in IAM: each a group's id and its role."""
    rows = (
        select(AccountAccess.group_id, AccountAccess.role, Group.slug)
        .join(Group, and_(Group.tenancy_id == AccountAccess.tenancy_id, Group.id == AccountAccess.group_id))
        .where(*of_account(run), AccountAccess.state == AccessState.REMOVING)
    )
    async with run.read() as session:
        return {roles.role_name(role, slug): (group_id, role) for group_id, role, slug in await session.execute(rows)}


STAGE = Stage(
    name=WITHDRAWAL,
    title="Withdrawn access",
    description="Removes the IAM roles of groups that have lost access to the account.",
    permissions=tuple(sorted((*roles.DELETE_PERMISSIONS, "iam:ListRoles", "sts:AssumeRole"))),
    check=check,
    apply=apply,
    governs=True,
)
