"""One run: start everything, request accounts and kill, wait for the end, count."""

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aioboto3

from server.config import PREFIX, SIMULATOR_CREDENTIALS, Settings
from server.embedded import Services, embedded
from server.embedded.ports import free_port
from server.migrate import migrate
from server.operations import issue_token, open_tenancy
from tests.chaos.aws import BadAws
from tests.chaos.clients import AGAIN_SECONDS, Api
from tests.chaos.database import Database, opened
from tests.chaos.failpoints import Failpoints
from tests.chaos.fencing import Freezer
from tests.chaos.followers import ChangesFollower, Follower, SetupFollower
from tests.chaos.killer import Killer
from tests.chaos.nursery import owner
from tests.chaos.outcome import Outcome
from tests.chaos.plan import FULL, draw
from tests.chaos.processes import Child, Fleet, nursery
from tests.chaos.recovery import Recoveries
from tests.chaos.users import Users

# With two workers frozen there are three to be killed.
SERVERS, WORKERS = 2, 5
TENANCY = "chaos"
REGIONS = ("us-east-1", "eu-central-1")
# One account so often, as long as no more than so many are unfinished.
REQUEST_SECONDS, MOST_UNFINISHED = 2.0, 25
# So many at once before the first kill.
FIRST_ACCOUNTS = 4
# How many calls to create one account may meet a fault: a short run has no time for more than one.
SHORT_FAULTS, LONG_FAULTS = 1, 3
FIRST_SECONDS = 60.0
# After the last kill.
FINISH_SECONDS = 120.0
HEAR_SECONDS = 10.0
SETTLE_SECONDS = 10.0
LOOK_SECONDS = 0.2
# How long AWS takes to create an account: several kills.
CREATE_SECONDS = 4
# Followers of all accounts together.
CHANGES_FOLLOWERS = 2
UNFINISHED = "SELECT id, name, status FROM account WHERE status NOT IN ('ACTIVE', 'CANCELLED') ORDER BY name"
LIVE = "SELECT 1 FROM setup WHERE status IN ('PENDING', 'RUNNING', 'WAITING')"
ACCOUNTS = "SELECT id, email, status, last_seq FROM account"
POSITION = "SELECT last_position FROM event_counter"
# What two workers at one setup would leave behind: a stage begun twice under one lease, or completed twice.
TOLD_TWICE = """
SELECT account.name, event.stage ->> 'name' AS stage, event.stage ->> 'status' AS status,
       CASE event.stage ->> 'status' WHEN 'RUNNING' THEN event.setup ->> 'lease_token' END AS token, count(*) AS times
FROM event JOIN account ON account.id = event.account_id
WHERE event.stage ->> 'status' IN ('RUNNING', 'COMPLETED')
GROUP BY account.name, event.setup ->> 'id', 2, 3, 4
HAVING count(*) > 1
"""
STAGES = """
SELECT stage.name, stage.status, stage.attempts, stage.error_code, setup.lease_owner, setup.next_attempt_at
FROM stage JOIN setup ON setup.id = stage.setup_id
WHERE setup.account_id = $1 AND stage.status NOT IN ('COMPLETED', 'PENDING')
"""


@dataclass
class Stage:
    """Everything that runs."""

    services: Services
    database: Database
    aws: BadAws
    fleet: Fleet
    failpoints: Failpoints
    freezer: Freezer
    hits: Counter[str]
    recoveries: Recoveries
    api: Api
    followers: list[Follower] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


async def run(kills: int, seed: int, say: Callable[[str], None]) -> Outcome:
    """Carry the plan of the seed out; raises what makes going on impossible. Nothing is left running."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="freehold-chaos-") as directory:
        async with arranged(Path(directory), kills, seed) as stage:
            killer = Killer(stage.services, stage.database, stage.fleet, stage.failpoints, stage.freezer, say)
            users = Users(stage.api, await stage.api.create_account_type("Chaos"), seed)
            for _ in range(CHANGES_FOLLOWERS):
                changes = ChangesFollower(api=stage.api, on_error=users.retry)
                await changes.begin()
                follow(stage, changes)
            stage.aws.bad = True
            say(f"ready after {time.monotonic() - began:.0f} s; seed {seed}; logs in {directory}")
            enough = asyncio.Event()
            for _ in range(FIRST_ACCOUNTS):
                await request_account(stage, users)
            requesting = asyncio.create_task(request_accounts(stage, users, enough))
            stage.tasks.append(requesting)
            await while_all_runs(stage, killer.carry_out(draw(kills, seed)))
            last = time.monotonic()
            enough.set()
            await requesting
            say("the last kill is done; waiting for the accounts")
            with suppress(TimeoutError):
                async with asyncio.timeout(FINISH_SECONDS):
                    while await stage.database.patiently(UNFINISHED):  # noqa: ASYNC110 - see Recoveries.watch
                        await asyncio.sleep(LOOK_SECONDS)
            finish_seconds = time.monotonic() - last
            missed = await hear_the_rest(stage)
            await users.stop()
            await look_at_cancelled(stage, users)
            return Outcome(
                seed=seed,
                kills=Counter({str(kind): count for kind, count in killer.done.items()}),
                failpoints=stage.hits,
                unreached=sorted(killer.armed - set(stage.hits)),
                stuck=killer.stuck,
                faults=stage.aws.met,
                created=stage.aws.created,
                users=users,
                duplicates=await duplicates(stage),
                repeats=stage.aws.repeats,
                unfinished=await unfinished(stage),
                recovery=stage.recoveries.seconds,
                followers=stage.followers,
                missed=missed,
                fenced=stage.freezer.refused,
                unfenced=stage.freezer.written,
                told_twice=[str(dict(row)) for row in await stage.database.patiently(TOLD_TWICE)],
                surprises=stage.fleet.surprises + await not_ready(stage),
                seconds=time.monotonic() - began,
                finish_seconds=finish_seconds,
            )


@asynccontextmanager
async def arranged(directory: Path, kills: int, seed: int) -> AsyncIterator[Stage]:
    """The services, the proxy, servers and workers, and a tenancy whose foundation is there."""
    os.environ[f"{PREFIX}SIMULATOR_CREATE_SECONDS"] = str(CREATE_SECONDS)
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(embedded(directory / "data", fsync=False))
        faults = SHORT_FAULTS if kills <= FULL else LONG_FAULTS
        aws = await stack.enter_async_context(BadAws(services.aws_endpoint, seed, faults).serve())
        database = await stack.enter_async_context(opened(services))
        settings = Settings(
            owner_database_url=services.owner_url,
            database_url=services.app_url,
            worker_database_url=services.worker_url,
            redis_url=services.redis_url,
            aws_endpoint_url=aws.url,
        )
        await migrate(settings)
        failpoints, recoveries = Failpoints(directory / "failpoints"), Recoveries(database)
        hits: Counter[str] = Counter()

        def ended(child: Child, status: int, failpoint: str | None) -> None:
            if failpoint is not None:
                hits[failpoint] += 1
            if status == -9 and child.name.startswith("worker"):
                recoveries.died(owner(child.pid))

        logs = services.data_dir / "logs"
        forks = await stack.enter_async_context(nursery(failpoints, logs / "nursery.log"))
        fleet = Fleet(forks, failpoints, logs, ended)
        stack.push_async_callback(fleet.stop)
        environment = _environment(settings)
        for number in range(1, WORKERS + 1):
            await fleet.start(f"worker-{number}", environment)
        ports = [free_port() for _ in range(SERVERS)]
        for number, port in enumerate(ports, start=1):
            await fleet.start(f"server-{number}", environment | {f"{PREFIX}PORT": str(port)})
        await _bootstrap(database, settings)
        api = Api(
            [f"http://127.0.0.1:{port}" for port in ports], await issue_token(settings, TENANCY, "chaos", "ADMIN")
        )
        stack.push_async_callback(api.close)
        freezer = Freezer(failpoints.directory)
        stage = Stage(services, database, aws, fleet, failpoints, freezer, hits, recoveries, api)
        stage.tasks.append(asyncio.create_task(recoveries.watch()))
        stack.push_async_callback(_end, stage.tasks)
        yield stage


async def while_all_runs(stage: Stage, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; raises as soon as a process cannot be kept running."""
    tasks = [asyncio.create_task(each) for each in (work, stage.services.wait(), stage.fleet.failed())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await _end(tasks)


async def _bootstrap(database: Database, settings: Settings) -> None:
    async with asyncio.timeout(FIRST_SECONDS):
        while not await database.patiently("SELECT 1 FROM stage_definition LIMIT 1"):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
        await open_tenancy(
            settings,
            name=TENANCY,
            email_template="aws+{id}@example.com",
            security_contact=("Security Team", "security@example.com", "+61 2 5550 0000"),
            regions=REGIONS,
        )
        while await database.patiently(LIVE):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)


async def request_accounts(stage: Stage, users: Users, enough: asyncio.Event) -> None:
    """Request accounts at a steady rate, each with a follower, until `enough` is set."""
    while not enough.is_set():
        if len(await stage.database.patiently(UNFINISHED)) < MOST_UNFINISHED:
            await request_account(stage, users)
        with suppress(TimeoutError):
            async with asyncio.timeout(REQUEST_SECONDS):
                await enough.wait()


async def request_account(stage: Stage, users: Users) -> None:
    ordered = await users.order()
    follow(stage, SetupFollower(api=stage.api, account_id=ordered.account_id))


def follow(stage: Stage, follower: Follower) -> None:
    stage.followers.append(follower)
    stage.tasks.append(asyncio.create_task(follower.follow()))


async def hear_the_rest(stage: Stage) -> int:
    """Let every follower hear all there is; how many events nobody told them of."""
    sequences = {f"acc_{row['id'].hex}": row["last_seq"] for row in await stage.database.patiently(ACCOUNTS)}
    ((position,),) = await stage.database.patiently(POSITION)
    last = [each.last(sequences, position) for each in stage.followers]
    with suppress(TimeoutError):
        async with asyncio.timeout(HEAR_SECONDS):
            await asyncio.gather(*(each.reach(end) for each, end in zip(stage.followers, last, strict=True)))
    return sum(max(0, end - each.cursor) for each, end in zip(stage.followers, last, strict=True))


async def look_at_cancelled(stage: Stage, users: Users) -> None:
    rows = await stage.database.patiently(ACCOUNTS)
    in_aws = {each["Email"].lower() for each in await aws_accounts(stage)}
    users.compare(
        {f"acc_{row['id'].hex}": row["status"] for row in rows},
        {f"acc_{row['id'].hex}": row["email"] for row in rows if (row["email"] or "").lower() in in_aws},
    )


async def unfinished(stage: Stage) -> list[str]:
    told = []
    for row in await stage.database.patiently(UNFINISHED):
        stages = await stage.database.patiently(STAGES, row["id"])
        told.append(f"{row['name']} is {row['status']}: " + "; ".join(str(dict(each)) for each in stages))
    return told


async def duplicates(stage: Stage) -> list[str]:
    """The names and e-mails for which AWS holds more than one account."""
    accounts = await aws_accounts(stage)
    # By name as well: the simulator refuses a used e-mail, so an account made twice would have another.
    counts = [Counter(each[by].lower() for each in accounts) for by in ("Email", "Name")]
    return [value for count in counts for value, times in count.items() for _ in range(times - 1)]


async def aws_accounts(stage: Stage) -> list[dict[str, str]]:
    key, secret = SIMULATOR_CREDENTIALS
    session = aioboto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1")
    async with session.client("organizations", endpoint_url=stage.services.aws_endpoint) as organizations:
        pages = organizations.get_paginator("list_accounts").paginate()
        return [account async for page in pages for account in page["Accounts"]]


async def not_ready(stage: Stage) -> list[str]:
    """The servers that have not come back, when they have had the time to."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (wrong := await stage.api.readiness()) and time.monotonic() < deadline:  # noqa: ASYNC110 - another process
        await asyncio.sleep(LOOK_SECONDS)
    return wrong


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        # A follower that is just closing its connection may not hear of it the first time.
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


def _environment(settings: Settings) -> dict[str, str]:
    names = ("database_url", "worker_database_url", "redis_url", "aws_endpoint_url")
    return {PREFIX + name.upper(): str(getattr(settings, name)) for name in names}
