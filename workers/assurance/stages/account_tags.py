"""The account's tags in AWS Organizations, for a tenancy that wants them there.

What Freehold sets it has on record before it asks AWS, and it changes and removes nothing else: a tag of the same key
that somebody else has set stays as it is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from server.accounts.models import AccountRole, PropagatedTag, Tag
from workers.assurance.run import Run
from workers.assurance.stage import MEMBERS, Finding, Stage, ask, finding
from workers.aws.errors import is_outcome_unknown
from workers.aws.turns import organization_turn

if TYPE_CHECKING:
    from types_aiobotocore_organizations import OrganizationsClient
    from types_aiobotocore_organizations.type_defs import TagTypeDef


@dataclass(frozen=True, slots=True)
class _Tags:
    """Those wanted in AWS, the keys that Freehold has set there, and those that are there."""

    wanted: Mapping[str, str]
    ours: Collection[str]
    there: Mapping[str, str]

    @property
    def differing(self) -> dict[str, str]:
        return {key: value for key, value in self.wanted.items() if self.there.get(key) != value}

    @property
    def foreign(self) -> list[str]:
        """Of the differing, the keys that somebody else has set."""
        return sorted(key for key in self.differing if key in self.there and key not in self.ours)

    @property
    def stale(self) -> list[str]:
        return sorted(set(self.ours) - self.wanted.keys())


async def check(run: Run) -> Sequence[Finding]:
    tags = await _read(run)
    return [
        *(finding(key not in tags.differing, f"the tag {key!r} is {tags.there.get(key)!r}") for key in tags.wanted),
        *(finding(False, f"the tag {key!r} is Freehold's and no longer wanted") for key in tags.stale),
    ]


async def apply(run: Run) -> None:
    tags = await _read(run)
    given = {key: value for key, value in tags.differing.items() if key not in tags.foreign}
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        # First what goes: an account has at most 50.
        if tags.stale:
            async with organization_turn(run.engine, run.aws, run.tenancy.id):
                await organizations.untag_resource(ResourceId=run.aws_account_id, TagKeys=tags.stale)
            await _forget(run, tags.stale)
        if given:
            await _set(run, organizations, given, new=given.keys() - set(tags.ours))
    if tags.foreign:
        named = ", ".join(f"{key!r} ({tags.there[key]!r})" for key in tags.foreign)
        raise ask(
            "TAG_IN_USE",
            f"Somebody else has given the account these tags in AWS, with other values: {named}. Remove them there, or "
            "give the tag here the same value or another key, and retry the setup.",
        )


async def _set(run: Run, organizations: "OrganizationsClient", given: Mapping[str, str], new: Collection[str]) -> None:
    await _remember(run, new)
    added: list[TagTypeDef] = [{"Key": key, "Value": value} for key, value in given.items()]
    try:
        async with organization_turn(run.engine, run.aws, run.tenancy.id):
            await organizations.tag_resource(ResourceId=run.aws_account_id, Tags=added)
    except Exception as error:
        if not is_outcome_unknown(error):
            await _forget(run, new)
        raise


async def _read(run: Run) -> _Tags:
    """AWS is asked only where Freehold has to do with the account's tags."""
    mine = (Tag.tenancy_id == run.tenancy.id, Tag.account_id == run.account.id)
    set_by_us = (PropagatedTag.tenancy_id == run.tenancy.id, PropagatedTag.account_id == run.account.id)
    async with run.read() as session:
        rows = (await session.execute(select(Tag.key, Tag.value).where(*mine).order_by(Tag.key))).all()
        ours = (await session.scalars(select(PropagatedTag.key).where(*set_by_us))).all()
    wanted = {row.key: row.value for row in rows} if run.tenancy.propagate_tags else {}
    if not wanted and not ours:
        return _Tags({}, (), {})
    async with run.aws.client("organizations", run.tenancy.home_region) as organizations:
        pages = organizations.get_paginator("list_tags_for_resource").paginate(ResourceId=run.aws_account_id)
        there = {tag["Key"]: tag["Value"] async for page in pages for tag in page["Tags"]}
    return _Tags(wanted, ours, there)


async def _remember(run: Run, keys: Collection[str]) -> None:
    if not keys:
        return
    rows = [{"tenancy_id": run.tenancy.id, "account_id": run.account.id, "key": key} for key in keys]
    async with run.write() as session:
        await session.execute(insert(PropagatedTag).values(rows).on_conflict_do_nothing())


async def _forget(run: Run, keys: Collection[str]) -> None:
    gone = delete(PropagatedTag).where(PropagatedTag.account_id == run.account.id, PropagatedTag.key.in_(keys))
    async with run.write() as session:
        await session.execute(gone.execution_options(synchronize_session=False))


STAGE = Stage(
    name="account_tags",
    title="Tags in AWS",
    description="Gives the account its tags in AWS Organizations, where the tenancy wants that.",
    permissions=(
        "organizations:ListTagsForResource",
        "organizations:TagResource",
        "organizations:UntagResource",
    ),
    check=check,
    apply=apply,
    roles=(AccountRole.MANAGEMENT, *MEMBERS),
    governs=True,
)
