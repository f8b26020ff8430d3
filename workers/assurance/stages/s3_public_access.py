"""S3 Block Public Access for the whole account: no bucket in it can be made public."""

from collections.abc import Sequence

from botocore.exceptions import ClientError

from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, cis, finding
from workers.aws.errors import error_code

BLOCKED = cis("3.1.4")
SETTINGS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


async def check(run: Run) -> Sequence[Finding]:
    async with run.member("s3control") as s3control:
        try:
            answer = await s3control.get_public_access_block(AccountId=run.aws_account_id)
            block = dict(answer["PublicAccessBlockConfiguration"])
        except ClientError as error:
            if error_code(error) != "NoSuchPublicAccessBlockConfiguration":
                raise
            block = {}
    off = [setting for setting in SETTINGS if not block.get(setting)]
    return [finding(not off, f"off: {', '.join(off)}" if off else "all four settings are on", BLOCKED)]


async def apply(run: Run) -> None:
    async with run.member("s3control") as s3control:
        await s3control.put_public_access_block(
            AccountId=run.aws_account_id,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )


STAGE = Stage(
    name="s3_public_access",
    title="S3 public access",
    description="Blocks public access to all S3 buckets of the account.",
    controls=(BLOCKED,),
    permissions=("s3:GetAccountPublicAccessBlock", "s3:PutAccountPublicAccessBlock", "sts:AssumeRole"),
    check=check,
    apply=apply,
)
