"""One server and some workers on services of their own, with the recording proxy before AWS."""

import os
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from server.config import PREFIX, Settings
from server.embedded import Services, embedded
from server.embedded.installation import Installation, as_environment, freehold
from server.embedded.opening import EMAIL_TEMPLATE, SECURITY_CONTACT, migrate, server_is_ready, worker_is_ready
from server.embedded.ports import LOOPBACK, free_port
from server.operations import issue_token, open_tenancy
from server.tenancies.service import DEFAULT_REGIONS
from tests.benchmarks.setups.aws import RecordingAws
from tests.benchmarks.setups.follow import follow
from tests.chaos.clients import Api

T = TypeVar("T")

TENANCY = "benchmark"
HOME = "us-east-1"
# More than the 1,000 that the simulator allows by itself: the foundation and the first accounts count too.
ACCOUNT_LIMIT = 10_000
ACCOUNTS = "{ accounts { nodes { id } } }"


@dataclass(frozen=True, slots=True)
class Running:
    """What runs, and an account type to create accounts in."""

    services: Services
    aws: RecordingAws
    api: Api
    account_type: str
    workers: Sequence[psutil.Process]

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; raises ServiceError as soon as a part cannot be kept running."""
        return await Installation(self.api.urls[0], "", self.services).while_up(work)


@asynccontextmanager
async def running(workers: int, regions: int, creation_seconds: int) -> AsyncIterator[Running]:
    """An installation whose tenancy is ready and has created one account; nothing of it is left afterwards."""
    os.environ[f"{PREFIX}SIMULATOR_ACCOUNT_LIMIT"] = str(ACCOUNT_LIMIT)
    os.environ[f"{PREFIX}SIMULATOR_CREATE_SECONDS"] = str(creation_seconds)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="freehold-setups-")))
        services = await stack.enter_async_context(embedded(directory / "data"))
        aws = await stack.enter_async_context(RecordingAws(services.aws_endpoint).serve())
        settings = Settings(
            owner_database_url=services.owner_url,
            database_url=services.app_url,
            worker_database_url=services.worker_url,
            redis_url=services.redis_url,
            aws_endpoint_url=aws.url,
            host=LOOPBACK,
            port=free_port(),
        )
        await migrate(settings)
        environment = as_environment(settings)
        await services.start("server", freehold("server"), environment, server_is_ready(settings))
        for number in range(1, workers + 1):
            await services.start(f"worker-{number}", freehold("worker"), environment, worker_is_ready(settings))
        await open_tenancy(
            settings,
            name=TENANCY,
            email_template=EMAIL_TEMPLATE,
            security_contact=SECURITY_CONTACT,
            home_region=HOME,
            regions=sorted(DEFAULT_REGIONS, key=lambda region: region != HOME)[:regions],
        )
        api = Api(
            [f"http://{settings.host}:{settings.port}"], await issue_token(settings, TENANCY, "benchmark", "ADMIN")
        )
        stack.push_async_callback(api.close)
        await follow(api, [node["id"] for node in (await api.ask(ACCOUNTS))["accounts"]["nodes"]])
        account_type = await api.create_account_type("Benchmark")
        # The first of a type waits for its organizational unit, and a worker's first connects to every Region.
        await follow(api, [await api.create_account(f"Warm {number}", account_type) for number in range(3 * workers)])
        yield Running(services, aws, api, account_type, processes("worker"))


def processes(command: str) -> list[psutil.Process]:
    """The processes below this one that run `freehold COMMAND`, without their guards."""
    below = psutil.Process().children(recursive=True)
    return [each for each in below if each.cmdline() == freehold(command)]
