"""EBS volumes encrypted by default, in every Region of the tenancy."""

from collections.abc import Sequence

from workers.assurance.regions import in_every_region
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, cis, finding

ENCRYPTED = cis("6.1.1")


async def check(run: Run) -> Sequence[Finding]:
    return [
        finding(on, f"{region}: encryption by default is {'on' if on else 'off'}", ENCRYPTED)
        for region, on in await in_every_region(run, _is_on)
    ]


async def apply(run: Run) -> None:
    await in_every_region(run, _switch_on)


async def _is_on(run: Run, region: str) -> bool:
    async with run.member("ec2", region) as ec2:
        return (await ec2.get_ebs_encryption_by_default())["EbsEncryptionByDefault"]


async def _switch_on(run: Run, region: str) -> None:
    async with run.member("ec2", region) as ec2:
        await ec2.enable_ebs_encryption_by_default()


STAGE = Stage(
    name="ebs_encryption",
    title="EBS encryption",
    description="Encrypts new EBS volumes by default in every Region.",
    controls=(ENCRYPTED,),
    permissions=("ec2:EnableEbsEncryptionByDefault", "ec2:GetEbsEncryptionByDefault", "sts:AssumeRole"),
    check=check,
    apply=apply,
)
