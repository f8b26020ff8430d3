"""What a stage is given to work with."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, overload

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from server.accounts.models import Account
from server.assurance.models import Setup, SetupKind
from server.database import transaction
from server.tenancies.models import Tenancy
from workers.aws.session import Aws
from workers.lease import Lease

if TYPE_CHECKING:
    from types_aiobotocore_account import AccountClient
    from types_aiobotocore_ec2 import EC2Client
    from types_aiobotocore_iam import IAMClient
    from types_aiobotocore_s3control import S3ControlClient
    from types_aiobotocore_sts import STSClient


@dataclass(frozen=True, slots=True)
class Run:
    """One setup, as its rows were when the check or apply began. The rows are for reading: `write` changes them."""

    engine: AsyncEngine
    aws: Aws
    lease: Lease[Setup]
    kind: SetupKind
    # When the stage was first tried.
    stage_since: datetime
    tenancy: Tenancy
    account: Account

    @property
    def label(self) -> str:
        """The account for a log line: its name, and the id that the API shows, so that one finds the other."""
        return f"{self.account.name!r} (acc_{self.account.id.hex})"

    @property
    def aws_account_id(self) -> str:
        """The account's number in AWS; a stage that asks for it comes after the one that creates the account."""
        if self.account.aws_account_id is None:
            raise ValueError(f"account {self.account.id} has no AWS account yet")
        return self.account.aws_account_id

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction fenced by the lease."""
        async with self.lease.write() as (session, _):
            yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A transaction to look, not to change."""
        async with transaction(self.engine) as session:
            yield session

    @overload
    def member(
        self, service: Literal["account"], region: str | None = None
    ) -> AbstractAsyncContextManager["AccountClient"]: ...
    @overload
    def member(
        self, service: Literal["ec2"], region: str | None = None
    ) -> AbstractAsyncContextManager["EC2Client"]: ...
    @overload
    def member(
        self, service: Literal["iam"], region: str | None = None
    ) -> AbstractAsyncContextManager["IAMClient"]: ...
    @overload
    def member(
        self, service: Literal["s3control"], region: str | None = None
    ) -> AbstractAsyncContextManager["S3ControlClient"]: ...
    @overload
    def member(
        self, service: Literal["sts"], region: str | None = None
    ) -> AbstractAsyncContextManager["STSClient"]: ...
    @asynccontextmanager
    async def member(self, service: Any, region: str | None = None) -> AsyncIterator[Any]:
        """A client that works inside the account, in the tenancy's home Region unless another is named."""
        credentials = await self.aws.assume(self.aws_account_id, self.tenancy.home_region)
        async with self.aws.client(service, region or self.tenancy.home_region, credentials) as client:
            yield client


async def load_run(engine: AsyncEngine, aws: Aws, lease: Lease[Setup], stage_since: datetime) -> Run:
    """The setup's rows as they are now."""
    rows = (
        select(Setup.kind, Tenancy, Account)
        .join(Account, Account.id == Setup.account_id)
        .join(Tenancy, Tenancy.id == Setup.tenancy_id)
        .where(Setup.id == lease.row_id)
    )
    async with transaction(engine) as session:
        kind, tenancy, account = (await session.execute(rows)).one()
    return Run(engine, aws, lease, kind, stage_since, tenancy, account)
