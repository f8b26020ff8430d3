"""AWS clients of one worker process: where they connect to, with whose credentials, and how often they try.

There is one client for each service and Region, shared by all accounts: a client of its own for every account would
cost 1 MB and 15 ms of CPU (EC2), and a TLS handshake, in every Region. A member account lends its credentials to the
shared client for the length of an `async with` block.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

import aioboto3
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from cachetools import LRUCache

from server.config import SIMULATOR_CREDENTIALS, AwsMode, Settings
from server.tenancies.service import ROLE

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from types_aiobotocore_account import AccountClient
    from types_aiobotocore_ec2 import EC2Client
    from types_aiobotocore_iam import IAMClient
    from types_aiobotocore_organizations import OrganizationsClient
    from types_aiobotocore_s3control import S3ControlClient
    from types_aiobotocore_service_quotas import ServiceQuotasClient
    from types_aiobotocore_sts import STSClient

ROLE_SESSION = "freehold"
RENEW_BEFORE = timedelta(minutes=5)
# As many setups as a worker may run side by side: what was not needed for longer is assumed anew.
KEPT_ROLES = 500

# AWS allows five account creations at a time in one organization.
CONCURRENT_CREATIONS = 5
CONNECT_SECONDS = 2
# Together with CONNECT_SECONDS less than a lease, so that a call that may happen only once ends within one.
ONCE_READ_SECONDS = 5
CALL_SECONDS = float(CONNECT_SECONDS + ONCE_READ_SECONDS)
# For so long a call whose answer was lost may still reach AWS, or what it made not show in AWS's lists.
QUARANTINE_SECONDS = 20.0
READ_SECONDS = 15
ATTEMPTS = 3
CONNECTIONS = 50

# What a worker in simulator mode must not read: the operator's own AWS profile.
NO_AMBIENT_CONFIGURATION = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
# Services whose IAM actions begin with another name.
PREFIXES = {"service-quotas": "servicequotas"}
# IAM actions that do not bear the name of the call that needs them.
ACTIONS = {
    "s3control:GetPublicAccessBlock": "s3:GetAccountPublicAccessBlock",
    "s3control:PutPublicAccessBlock": "s3:PutAccountPublicAccessBlock",
}

Service = Literal["account", "ec2", "iam", "organizations", "s3control", "service-quotas", "sts"]
Guard = Callable[[str], None]

# Asked before every attempt at a call to AWS made below it, with the IAM action that the call needs; it forbids by
# raising.
guard: ContextVar[Guard | None] = ContextVar("guard", default=None)


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires: datetime


@dataclass(frozen=True, slots=True)
class _Key:
    service: Service
    region: str
    # Whether it works with lent credentials, or with the worker's own, in the management account.
    lent: bool
    once: bool


_lent: ContextVar[Credentials | None] = ContextVar("lent", default=None)


class _LentCredentials(AioCredentials):
    """What a shared client signs with: the credentials lent to it by the task that makes the call, and no others."""

    def __init__(self) -> None:
        super().__init__("lent", "lent", method="lent")

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:  # type: ignore[override] # as in aiobotocore
        credentials = _lent.get()
        if credentials is None:
            raise RuntimeError("a client of a member account is used outside of the block that lends it credentials")
        return ReadOnlyCredentials(credentials.access_key, credentials.secret_key, credentials.session_token)


class _Lender:
    """Stands where a session looks for credentials."""

    async def load_credentials(self) -> AioCredentials:
        return _LentCredentials()


class Aws:
    """Clients and assumed roles. Raises ConfigurationError when simulator mode has no endpoint.

    `organization_writes` lets one setup of this process at a time wait for its turn at an organization, and `worker`
    tells this process from the others that do (see `turns.py`).
    """

    def __init__(self, settings: Settings) -> None:
        self._endpoint: str | None = None
        self._config: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "max_pool_connections": CONNECTIONS}
        self._verify: bool | None = None
        ambient: Any = None
        credentials: tuple[str, ...] = ()
        if settings.aws_mode is not AwsMode.REAL:
            # An explicit endpoint and fixed credentials: nothing in the environment can lead this mode to AWS itself.
            self._endpoint = settings.require("aws_endpoint_url")
            self._config["proxies"] = {}
            ambient, credentials = NO_AMBIENT_CONFIGURATION, SIMULATOR_CREDENTIALS
            if urlsplit(self._endpoint).scheme == "http":
                # Every client would load the certificate authorities, for 30 ms, and never ask them.
                self._verify = False
        own, lent = AioSession(session_vars=ambient), AioSession(session_vars=ambient)
        lent.register_component("credential_provider", _Lender())
        # The parsed service models, 80 ms of CPU for the first client of a process.
        lent.register_component("data_loader", own.get_component("data_loader"))
        self._own = aioboto3.Session(*credentials, botocore_session=own)
        self._lent = aioboto3.Session(botocore_session=lent)
        self._clients: dict[_Key, Any] = {}
        self._resources = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._assumed: LRUCache[str, Credentials] = LRUCache(KEPT_ROLES)
        # A lock lives for as long as somebody has it in hand.
        self._assuming: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.worker = uuid4()
        self.organization_writes: defaultdict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __aenter__(self) -> "Aws":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._clients.clear()
        await self._resources.aclose()

    async def warm_up(self, region: str = "us-east-1") -> None:
        """Parse the service models now rather than while setups run."""
        services: tuple[Service, ...] = ("organizations", "sts", "iam", "account", "s3control", "ec2")
        for service in services:
            async with self._client(service, region, None, once=False):
                pass

    def partition(self, region: str) -> str:
        """The partition of a Region: `aws`, `aws-us-gov`, `aws-cn`..."""
        return str(self._own.get_partition_for_region(region))

    @overload
    def client(
        self, service: Literal["account"], region: str, credentials: Credentials | None = None, *, once: bool = False
    ) -> AbstractAsyncContextManager["AccountClient"]: ...
    @overload
    def client(
        self, service: Literal["ec2"], region: str, credentials: Credentials | None = None, *, once: bool = False
    ) -> AbstractAsyncContextManager["EC2Client"]: ...
    @overload
    def client(
        self, service: Literal["iam"], region: str, credentials: Credentials | None = None, *, once: bool = False
    ) -> AbstractAsyncContextManager["IAMClient"]: ...
    @overload
    def client(
        self,
        service: Literal["organizations"],
        region: str,
        credentials: Credentials | None = None,
        *,
        once: bool = False,
    ) -> AbstractAsyncContextManager["OrganizationsClient"]: ...
    @overload
    def client(
        self, service: Literal["s3control"], region: str, credentials: Credentials | None = None, *, once: bool = False
    ) -> AbstractAsyncContextManager["S3ControlClient"]: ...
    @overload
    def client(
        self,
        service: Literal["service-quotas"],
        region: str,
        credentials: Credentials | None = None,
        *,
        once: bool = False,
    ) -> AbstractAsyncContextManager["ServiceQuotasClient"]: ...
    @overload
    def client(
        self, service: Literal["sts"], region: str, credentials: Credentials | None = None, *, once: bool = False
    ) -> AbstractAsyncContextManager["STSClient"]: ...
    def client(
        self, service: Service, region: str, credentials: Credentials | None = None, *, once: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        """A client for the length of the block; without credentials it works in the management account.

        `once` makes a client that never sends a request twice, whatever becomes of the first.
        """
        return self._client(service, region, credentials, once=once)

    async def assume(self, account_id: str, region: str) -> Credentials:
        """Credentials of the role in a member account, from the cache until shortly before they expire."""
        async with self._assuming.setdefault(account_id, asyncio.Lock()):
            known = self._assumed.get(account_id)
            if known is not None and known.expires - RENEW_BEFORE > datetime.now(UTC):
                return known
            self.forget(account_id)
            async with self.client("sts", region) as sts:
                answer = await sts.assume_role(
                    RoleArn=f"arn:{self.partition(region)}:iam::{account_id}:role/{ROLE}", RoleSessionName=ROLE_SESSION
                )
            issued = answer["Credentials"]
            credentials = Credentials(
                issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"], issued["Expiration"]
            )
            self._assumed[account_id] = credentials
            return credentials

    def forget(self, account_id: str) -> None:
        """Assume the role of that account anew next time."""
        self._assumed.pop(account_id, None)

    @asynccontextmanager
    async def _client(
        self, service: Service, region: str, credentials: Credentials | None, *, once: bool
    ) -> AsyncIterator[Any]:
        key = _Key(service, region, credentials is not None, once)
        client = self._clients.get(key) or await self._open(key)
        lent = _lent.set(credentials)
        try:
            yield client
        finally:
            _lent.reset(lent)

    async def _open(self, key: _Key) -> Any:
        async with self._opening:
            if key in self._clients:
                return self._clients[key]
            config = Config(
                **self._config,
                read_timeout=ONCE_READ_SECONDS if key.once else READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": 1 if key.once else ATTEMPTS},
            )
            session = self._lent if key.lent else self._own
            client = await self._resources.enter_async_context(
                session.client(
                    key.service,
                    region_name=key.region,
                    endpoint_url=self._endpoint,
                    verify=self._verify,
                    config=config,
                )
            )
            client.meta.events.register("before-send", partial(_ask_guard, key.service))
            if self._endpoint is not None:
                client.meta.events.register("before-sign.s3-control", self._keep_to_endpoint)
            self._clients[key] = client
            return client

    def _keep_to_endpoint(self, request: "AWSRequest", **_: object) -> None:
        # The endpoint rules of s3control put the account id before the host, which an IP address has no room for.
        request.url = urlunsplit(urlsplit(str(request.url))._replace(netloc=urlsplit(self._endpoint or "").netloc))


def action(service: str, operation: str) -> str:
    """The IAM action that a call needs."""
    call = f"{PREFIXES.get(service, service)}:{operation}"
    return ACTIONS.get(call, call)


def _ask_guard(service: Service, event_name: str, **_: object) -> None:
    ask = guard.get()
    if ask is not None:
        # The event is called before-send.SERVICE.OPERATION.
        ask(action(service, event_name.rpartition(".")[2]))
