"""A peer to compare the reads with: the same questions over the same tables, answered by resolvers and DataLoaders.

`uv run python -m tests.benchmarks.reads.dataloaders`, with DATABASE_URL of a role past row-level security, TENANCY_ID
and PORT in the environment, serves `/graphql` on 127.0.0.1, prints `ready` when it listens, and ends on SIGTERM. Nobody
has to authenticate, and every request is for the one tenancy.
"""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
import strawberry
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Route
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader
from strawberry.extensions import ParserCache, ValidationCache
from strawberry.schema.config import StrawberryConfig

from server.accounts.models import AccountStatus
from server.assurance.models import SetupStatus, StageStatus
from server.graphql.ids import decode, encode
from server.graphql.scalars import SCALARS
from tests.benchmarks.reads.ready import serve

TENANCY = "SELECT name FROM tenancy WHERE id = $1"
ACCOUNT = "SELECT id, name, aws_account_id, status, account_type_id, created_at FROM account"
HAS_TAG = "id IN (SELECT account_id FROM tag WHERE tag.tenancy_id = $1 AND key = {0} AND value = {1})"
ACCOUNT_TYPES = "SELECT id, name FROM account_type WHERE id = ANY($1)"
LATEST_SETUPS = """
    SELECT DISTINCT ON (account_id) account_id, id, status FROM setup
    WHERE account_id = ANY($1) ORDER BY account_id, requested_at DESC, id DESC
"""
POLICIES = """
    SELECT account_type_id AS parent, name FROM policy_attachment JOIN policy ON policy.id = policy_id
    WHERE account_type_id = ANY($1) ORDER BY name
"""
TAGS = "SELECT account_id AS parent, key, value FROM tag WHERE account_id = ANY($1) ORDER BY account_id, key"
STAGES = """
    SELECT setup_id AS parent, name, status, started_at, finished_at FROM stage
    WHERE setup_id = ANY($1) ORDER BY setup_id, position
"""

for values in (AccountStatus, SetupStatus, StageStatus):
    strawberry.enum(values)


class Context:
    """What the resolvers of one request get: its DataLoaders, and the pool for what is not batched."""

    def __init__(self, pool: Any, tenancy_id: UUID) -> None:
        self.pool = pool
        self.tenancy_id = tenancy_id
        self.account_types = DataLoader(self._load_account_types)
        self.setups = DataLoader(self._load_setups)
        self.policies = DataLoader(self._load_policies)
        self.tags = DataLoader(self._load_tags)
        self.stages = DataLoader(self._load_stages)

    async def _load_account_types(self, ids: list[UUID]) -> list["AccountType"]:
        rows = await self.pool.fetch(ACCOUNT_TYPES, ids)
        found = {row["id"]: AccountType(key=row["id"], name=row["name"]) for row in rows}
        return [found[id_] for id_ in ids]

    async def _load_setups(self, account_ids: list[UUID]) -> list["AccountSetup | None"]:
        rows = await self.pool.fetch(LATEST_SETUPS, account_ids)
        found = {row["account_id"]: AccountSetup(key=row["id"], status=SetupStatus(row["status"])) for row in rows}
        return [found.get(id_) for id_ in account_ids]

    async def _load_policies(self, account_type_ids: list[UUID]) -> list[list["Policy"]]:
        lists = await self._fetch_lists(POLICIES, account_type_ids)
        return [[Policy(name=row["name"]) for row in rows] for rows in lists]

    async def _load_tags(self, account_ids: list[UUID]) -> list[list["Tag"]]:
        lists = await self._fetch_lists(TAGS, account_ids)
        return [[Tag(key=row["key"], value=row["value"]) for row in rows] for rows in lists]

    async def _load_stages(self, setup_ids: list[UUID]) -> list[list["SetupStage"]]:
        lists = await self._fetch_lists(STAGES, setup_ids)
        return [[SetupStage.from_row(row) for row in rows] for rows in lists]

    async def _fetch_lists(self, sql: str, parents: list[UUID]) -> list[list[Any]]:
        """The rows of each parent."""
        found = defaultdict(list)
        for row in await self.pool.fetch(sql, parents):
            found[row["parent"]].append(row)
        return [found[parent] for parent in parents]


Info: TypeAlias = strawberry.Info[Context, None]


class Where(NamedTuple):
    """A condition and the values it binds."""

    sql: str
    values: tuple[object, ...]

    def having(self, condition: str, *values: object) -> "Where":
        """With one more condition, in which {0} stands for the first of its values."""
        numbers = [f"${len(self.values) + n}" for n in range(1, len(values) + 1)]
        return Where(f"{self.sql} AND {condition.format(*numbers)}", (*self.values, *values))


@strawberry.type
class Tag:
    key: str
    value: str


@strawberry.type
class Policy:
    name: str


@strawberry.type
class AccountType:
    key: strawberry.Private[UUID]
    name: str

    @strawberry.field
    async def policies(self, info: Info) -> list[Policy]:
        return await info.context.policies.load(self.key)


@strawberry.type
class SetupStage:
    name: str
    status: StageStatus
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: Any) -> "SetupStage":
        status = StageStatus(row["status"])
        return cls(name=row["name"], status=status, started_at=row["started_at"], finished_at=row["finished_at"])


@strawberry.type
class AccountSetup:
    key: strawberry.Private[UUID]
    status: SetupStatus

    @strawberry.field
    async def stages(self, info: Info) -> list[SetupStage]:
        return await info.context.stages.load(self.key)


@strawberry.type
class Account:
    key: strawberry.Private[UUID]
    account_type_id: strawberry.Private[UUID]
    id: strawberry.ID
    name: str
    aws_account_id: str | None
    status: AccountStatus

    @classmethod
    def from_row(cls, row: Any) -> "Account":
        return cls(
            key=row["id"],
            account_type_id=row["account_type_id"],
            id=strawberry.ID(encode("acc", row["id"])),
            name=row["name"],
            aws_account_id=row["aws_account_id"],
            status=AccountStatus(row["status"]),
        )

    @strawberry.field
    async def account_type(self, info: Info) -> AccountType:
        return await info.context.account_types.load(self.account_type_id)

    @strawberry.field
    async def tags(self, info: Info) -> list[Tag]:
        return await info.context.tags.load(self.key)

    @strawberry.field
    async def setup(self, info: Info) -> AccountSetup | None:
        return await info.context.setups.load(self.key)


@strawberry.type
class PageInfo:
    has_next_page: bool
    end_cursor: str | None


@strawberry.type
class AccountConnection:
    where: strawberry.Private[Where]
    nodes: list[Account]
    page_info: PageInfo

    @strawberry.field
    async def total_count(self, info: Info) -> int:
        sql = f"SELECT count(*) FROM account WHERE {self.where.sql}"
        return int(await info.context.pool.fetchval(sql, *self.where.values))


@strawberry.type
class Tenancy:
    name: str


@strawberry.input(one_of=True)
class AccountBy:
    id: strawberry.ID | None = strawberry.UNSET


@strawberry.input
class TagFilter:
    key: str
    value: str


@strawberry.input
class AccountFilter:
    status: list[AccountStatus] | None = None
    tag: list[TagFilter] | None = None


@strawberry.type
class Query:
    @strawberry.field
    async def account(self, info: Info, by: AccountBy) -> Account | None:
        sql = f"{ACCOUNT} WHERE tenancy_id = $1 AND id = $2"
        row = await info.context.pool.fetchrow(sql, info.context.tenancy_id, decode(str(by.id), "acc"))
        return None if row is None else Account.from_row(row)

    @strawberry.field
    async def accounts(
        self, info: Info, first: int = 50, after: str | None = None, filter: AccountFilter | None = None
    ) -> AccountConnection:
        if not 1 <= first <= 100:
            raise ValueError("`first` is 1 to 100.")
        whole = Where("tenancy_id = $1", (info.context.tenancy_id,))
        if filter and filter.status:
            whole = whole.having("status = ANY({0})", filter.status)
        for tag in (filter and filter.tag) or ():
            whole = whole.having(HAS_TAG, tag.key, tag.value)
        rest = whole if after is None else whole.having("(created_at, id) < ({0}, {1})", *decode_cursor(after))
        # One more than the page tells whether another follows.
        sql = f"{ACCOUNT} WHERE {rest.sql} ORDER BY created_at DESC, id DESC LIMIT {first + 1}"
        rows = await info.context.pool.fetch(sql, *rest.values)
        page = rows[:first]
        page_info = PageInfo(has_next_page=len(rows) > first, end_cursor=encode_cursor(page[-1]) if page else None)
        return AccountConnection(where=whole, nodes=[Account.from_row(row) for row in page], page_info=page_info)

    @strawberry.field
    async def tenancy(self, info: Info) -> Tenancy:
        return Tenancy(name=await info.context.pool.fetchval(TENANCY, info.context.tenancy_id))


def encode_cursor(row: Any) -> str:
    return urlsafe_b64encode(f"{row['created_at'].isoformat()} {row['id'].hex}".encode()).decode()


def decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    created_at, key = urlsafe_b64decode(cursor).decode().split(" ")
    return datetime.fromisoformat(created_at), UUID(key)


class Endpoint(GraphQL[Context, None]):
    async def get_context(self, request: HTTPConnection, response: object) -> Context:
        return Context(request.state.pool, request.state.tenancy_id)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async def keep(_: object) -> None:
        """In place of asyncpg's reset of a connection, a round trip: nothing here outlives its statement."""

    options = {"min_size": 10, "max_size": 10, "reset": keep, "server_settings": {"jit": "off"}}
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], **options) as pool:
        yield {"pool": pool, "tenancy_id": UUID(os.environ["TENANCY_ID"])}


config = StrawberryConfig(scalar_map=SCALARS)
schema = strawberry.Schema(Query, extensions=[ParserCache, ValidationCache], config=config)
app = Starlette(routes=[Route("/graphql", Endpoint(schema))], lifespan=lifespan)

if __name__ == "__main__":
    serve(app)
