"""Version 2 of the instance metadata service (IMDSv2) required by default, in every Region of the tenancy."""

from collections.abc import Sequence

from workers.assurance.regions import in_every_region
from workers.assurance.run import Run
from workers.assurance.stage import Finding, Stage, cis, finding

VERSION_2_ONLY = cis("6.7")


async def check(run: Run) -> Sequence[Finding]:
    return [
        finding(tokens == "required", f"{region}: session tokens are {tokens or 'not set'}", VERSION_2_ONLY)
        for region, tokens in await in_every_region(run, _tokens)
    ]


async def apply(run: Run) -> None:
    await in_every_region(run, _require_tokens)


async def _tokens(run: Run, region: str) -> str | None:
    async with run.member("ec2", region) as ec2:
        return (await ec2.get_instance_metadata_defaults())["AccountLevel"].get("HttpTokens")


async def _require_tokens(run: Run, region: str) -> None:
    async with run.member("ec2", region) as ec2:
        await ec2.modify_instance_metadata_defaults(HttpTokens="required")


STAGE = Stage(
    name="instance_metadata",
    title="Instance metadata",
    description="Requires version 2 of the instance metadata service by default in every Region.",
    controls=(VERSION_2_ONLY,),
    permissions=("ec2:GetInstanceMetadataDefaults", "ec2:ModifyInstanceMetadataDefaults", "sts:AssumeRole"),
    check=check,
    apply=apply,
)
