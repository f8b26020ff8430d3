"""A tenancy and the ways of a test to work on it: with a whole worker, with one setup, or with one stage."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from server.account_types.models import AccountType
from server.account_types.service import create_account_type
from server.accounts.models import Account, AccountRole
from server.accounts.service import SYSTEM
from server.accounts.tags import TagValue
from server.assurance.foundation import bootstrap_tenancy
from server.assurance.models import (
    LIVE,
    CreateIntent,
    Event,
    IntentState,
    Setup,
    SetupKind,
    SetupStatus,
    Stage,
    StageStatus,
)
from server.assurance.requests import create_account
from server.assurance.service import begin_setup, retry_setup
from server.config import Settings
from server.database import transaction
from server.tenancies.models import Tenancy
from server.tenancies.service import create_tenancy
from tests.workers.proxies import AwsProxy
from workers.account_types.upkeep import UNIT, Units
from workers.assurance.run import Run, load_run
from workers.assurance.runner import Runner, assure
from workers.assurance.stage import Stage as Declared
from workers.assurance.stages import STAGES
from workers.aws.session import Aws, guard
from workers.lease import Lease, claim
from workers.setups import SETUP

BY_NAME = {stage.name: stage for stage in STAGES}
READS = ("Get", "List", "Describe", "AssumeRole")
CONTACT = ("Security Team", "security@example.com", "+61 2 5550 0000")


@dataclass
class World:
    settings: Settings
    engine: AsyncEngine
    aws: Aws
    proxy: AwsProxy
    tenancy_id: UUID
    # The IAM actions that each stage was seen to use.
    used: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    # Arranging

    async def account_type(self, name: str) -> UUID:
        async with transaction(self.engine) as session:
            return (await create_account_type(session, self.tenancy_id, name)).id

    async def request(self, name: str, account_type_id: UUID, **values: str) -> tuple[UUID, UUID]:
        """Request an account, as the API does; the ids of the account and of its setup."""
        async with transaction(self.engine) as session:
            account_id = await create_account(
                session,
                SYSTEM,
                self.tenancy_id,
                name=name,
                account_type_id=account_type_id,
                alias=values.get("alias"),
                email=values.get("email"),
                tags=[TagValue("purpose", "test")],
            )
        return account_id, (await self.setup_of(account_id)).id

    async def reassure(self, account_id: UUID, **changes: object) -> UUID:
        """Change the account in the database and begin the setup that brings AWS in line."""
        async with transaction(self.engine) as session:
            if changes:
                await session.execute(update(Account).where(Account.id == account_id).values(**changes))
            account = await session.get_one(Account, account_id, populate_existing=True)
            return (await begin_setup(session, account, SetupKind.REASSURE)).id

    async def retry(self, account_id: UUID, **changes: object) -> None:
        async with transaction(self.engine) as session:
            if changes:
                await session.execute(update(Account).where(Account.id == account_id).values(**changes))
            await retry_setup(session, await session.get_one(Account, account_id, populate_existing=True))

    async def set_intent(self, account_id: UUID, **values: object) -> None:
        async with transaction(self.engine) as session:
            await session.execute(update(CreateIntent).where(CreateIntent.account_id == account_id).values(**values))

    async def change(self, account_id: UUID, **changes: object) -> None:
        async with transaction(self.engine) as session:
            await session.execute(update(Account).where(Account.id == account_id).values(**changes))

    async def change_tenancy(self, **changes: object) -> None:
        async with transaction(self.engine) as session:
            await session.execute(update(Tenancy).where(Tenancy.id == self.tenancy_id).values(**changes))

    async def forget_unit(self, account_type_id: UUID) -> None:
        async with transaction(self.engine) as session:
            await session.execute(
                update(AccountType)
                .where(AccountType.id == account_type_id)
                .values(organizational_unit_id=None, aws_name=None, next_attempt_at=func.now())
            )

    async def set_setup(self, setup_id: UUID, **values: object) -> None:
        async with transaction(self.engine) as session:
            await session.execute(update(Setup).where(Setup.id == setup_id).values(**values))

    async def make_due(self, setup_id: UUID) -> None:
        """Let the time pass that a waiting setup waits for."""
        await self.set_setup(setup_id, next_attempt_at=func.now(), lease_until=None)

    async def replace_stages(self, setup_id: UUID, *names: str) -> None:
        """Give the setup other stages than the catalogue's."""
        async with transaction(self.engine) as session:
            await session.execute(delete(Stage).where(Stage.setup_id == setup_id))
            session.add_all(
                Stage(
                    setup_id=setup_id,
                    tenancy_id=self.tenancy_id,
                    position=position,
                    name=name,
                    title=name,
                    controls=[],
                )
                for position, name in enumerate(names, start=1)
            )

    async def end_setups(self) -> None:
        """Fail every setup that is live, so that no worker takes it up and none waits behind it."""
        async with transaction(self.engine) as session:
            await session.execute(update(Setup).where(Setup.status.in_(LIVE)).values(status=SetupStatus.FAILED))

    # Looking

    async def tenancy(self) -> Tenancy:
        async with transaction(self.engine) as session:
            return await session.get_one(Tenancy, self.tenancy_id)

    async def account(self, account_id: UUID) -> Account:
        async with transaction(self.engine) as session:
            return await session.get_one(Account, account_id)

    async def account_in_role(self, role: AccountRole) -> Account:
        found = select(Account).where(Account.tenancy_id == self.tenancy_id, Account.role == role)
        async with transaction(self.engine) as session:
            return (await session.scalars(found)).one()

    async def type_of(self, account_id: UUID) -> AccountType:
        async with transaction(self.engine) as session:
            account = await session.get_one(Account, account_id)
            return await session.get_one(AccountType, account.account_type_id)

    async def setup_of(self, account_id: UUID) -> Setup:
        """The account's newest setup."""
        newest = select(Setup).where(Setup.account_id == account_id).order_by(Setup.requested_at.desc()).limit(1)
        async with transaction(self.engine) as session:
            return (await session.scalars(newest)).one()

    async def intent(self, account_id: UUID) -> CreateIntent:
        async with transaction(self.engine) as session:
            return await session.get_one(CreateIntent, account_id)

    async def count_intents(self, accounts: Sequence[UUID], state: IntentState) -> int:
        """How many of the accounts have come so far with their creation."""
        found = select(func.count()).where(CreateIntent.account_id.in_(accounts), CreateIntent.state == state)
        async with transaction(self.engine) as session:
            return (await session.scalars(found)).one()

    async def stages(self, setup_id: UUID) -> dict[str, Stage]:
        rows = select(Stage).where(Stage.setup_id == setup_id).order_by(Stage.position)
        async with transaction(self.engine) as session:
            return {stage.name: stage for stage in await session.scalars(rows)}

    async def events(self, account_id: UUID) -> Sequence[Event]:
        rows = select(Event).where(Event.account_id == account_id).order_by(Event.sequence)
        async with transaction(self.engine) as session:
            return (await session.scalars(rows)).all()

    async def aws_accounts(self, email: str) -> list[str]:
        """The numbers of the AWS accounts with this e-mail."""
        async with self.aws.client("organizations", "us-east-1") as organizations:
            pages = organizations.get_paginator("list_accounts").paginate()
            return [each["Id"] async for page in pages for each in page["Accounts"] if each["Email"] == email]

    async def begun(self, account_id: UUID) -> None:
        """Wait until the account has a setup."""
        async with asyncio.timeout(30):
            while True:
                async with transaction(self.engine) as session:
                    if await session.scalar(select(Setup.id).where(Setup.account_id == account_id)) is not None:
                        return
                await asyncio.sleep(0.05)

    async def until(self, setup_id: UUID, *statuses: SetupStatus, seconds: float = 30) -> Setup:
        """Wait until a worker has brought the setup to one of these statuses."""
        async with asyncio.timeout(seconds):
            while True:
                async with transaction(self.engine) as session:
                    setup = await session.get_one(Setup, setup_id)
                if setup.status in statuses:
                    return setup
                await asyncio.sleep(0.05)

    # Working

    async def keep_unit(self, account_type_id: UUID) -> Counter[str]:
        """Bring the unit of a type in line once, as one worker would, if it is due; the calls to AWS that it took."""
        before = self.proxy.calls.copy()
        lease = await claim(self.engine, UNIT, account_type_id)
        if lease is not None:
            # In a task, as the executor runs it: the guard of its calls is its own.
            await asyncio.create_task(Units(self.engine, self.aws).run(lease))
        return self.proxy.calls - before

    async def claim(self, setup_id: UUID) -> Lease[Setup]:
        lease = await claim(self.engine, SETUP, setup_id)
        assert lease is not None, f"setup {setup_id} is not to be had"
        return lease

    async def run(self, setup_id: UUID, stages: Sequence[Declared] = STAGES) -> Setup:
        """Run the setup once, as one worker would; how it is then."""
        lease = await self.claim(setup_id)
        # In a task, as the executor runs it: the guard of its calls is its own.
        await asyncio.create_task(Runner(self.engine, self.aws, stages).run(lease))
        async with transaction(self.engine) as session:
            return await session.get_one(Setup, setup_id)

    async def complete(self, setup_id: UUID) -> None:
        """Run the setup until it is complete."""
        for _ in range(20):
            setup = await self.run(setup_id)
            if setup.status is not SetupStatus.WAITING:
                assert setup.status is SetupStatus.COMPLETED, await self.stages(setup_id)
                return
            await self.make_due(setup_id)
        raise AssertionError(f"setup {setup_id} waits for ever")

    @asynccontextmanager
    async def holding(self, setup_id: UUID) -> AsyncIterator[Run]:
        """The setup's lease, for work on single stages; given up in the end as if the worker had died."""
        lease = await self.claim(setup_id)
        run = await load_run(self.engine, self.aws, lease, (await self.setup_of_id(setup_id)).requested_at)
        yield run
        await self.make_due(setup_id)

    async def setup_of_id(self, setup_id: UUID) -> Setup:
        async with transaction(self.engine) as session:
            return await session.get_one(Setup, setup_id)

    @contextmanager
    def recording(self, stage: str) -> Iterator[list[str]]:
        """The IAM actions of the calls made in the block, which count as the stage's."""
        actions: list[str] = []
        token = guard.set(actions.append)
        try:
            yield actions
        finally:
            guard.reset(token)
            self.used[stage].update(actions)

    async def assure(self, run: Run, name: str) -> list[str]:
        """Assure one stage; the IAM actions it used, with the role assumed anew."""
        run = await load_run(run.engine, run.aws, run.lease, run.stage_since)
        if run.account.aws_account_id is not None:
            self.aws.forget(run.account.aws_account_id)
        with self.recording(name) as actions:
            await assure(BY_NAME[name], run)
        return actions

    async def walk(self, setup_id: UUID) -> None:
        """Run the setup with each stage's actions recorded under its name."""
        async with self.holding(setup_id) as run:
            for name, row in (await self.stages(setup_id)).items():
                if row.status is StageStatus.PENDING:
                    await self.assure(run, name)


def writes(actions: Sequence[str]) -> list[str]:
    return [action for action in actions if not action.partition(":")[2].startswith(READS)]


async def new_tenancy(engine: AsyncEngine, name: str, *regions: str) -> UUID:
    async with transaction(engine) as session:
        tenancy = await create_tenancy(
            session,
            name=name,
            email_template="aws+{id}@example.com",
            security_contact=CONTACT,
            home_region="us-east-1",
            regions=regions or ("us-east-1", "eu-west-1"),
        )
        await bootstrap_tenancy(session, tenancy)
    return tenancy.id
