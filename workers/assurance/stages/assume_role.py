"""Access: Freehold can assume the role that AWS made in the new account."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from server.assurance.models import SetupKind
from server.tenancies.service import ROLE
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, ask, finding, wait
from workers.aws.errors import error_code

# The role of a new account may take minutes to be assumable; for that long a denial is taken for passing.
PATIENCE = timedelta(minutes=15)
LOOK_AGAIN_SECONDS = 5.0


async def check(run: Run) -> Sequence[Finding]:
    try:
        async with run.member("sts") as sts:
            reached = (await sts.get_caller_identity())["Account"]
    except ClientError as error:
        if error_code(error) != "AccessDenied":
            raise
        raise _denied(run) from error
    return [finding(reached == run.aws_account_id, f"the role {ROLE} leads to the account {reached}")]


async def apply(run: Run) -> None:
    """There is nothing to change: only somebody with access to the account could."""
    raise ask(
        "WRONG_ACCOUNT", f"The role {ROLE} of the account {run.aws_account_id} leads elsewhere. Check the AWS endpoint."
    )


def _denied(run: Run) -> Exception:
    if run.kind is SetupKind.CREATE and datetime.now(UTC) - run.stage_since < PATIENCE:
        return wait(
            "AccessDenied",
            f"The role {ROLE} of the account cannot be assumed yet, which is usual in a new account.",
            LOOK_AGAIN_SECONDS,
        )
    return ask(
        "AccessDenied",
        f"Freehold cannot assume the role {ROLE} in the account {run.aws_account_id}. Create it there with the "
        "management account as its trusted principal and AdministratorAccess, check the service control policies of "
        "the account's unit, and retry the setup.",
    )


STAGE = Stage(
    name="assume_role",
    title="Access",
    description=f"Waits until Freehold can assume the role {ROLE} in the account.",
    permissions=("sts:AssumeRole", "sts:GetCallerIdentity"),
    check=check,
    apply=apply,
)
