"""A small schema of its own behind the real endpoint, real servers and real clients."""

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.config import Settings
from server.graphql.hub import Hub
from tests.server.fixtures import (
    Tenant,
    engine,
    new_tenant,
    owner,
    serving,
    settings,
    tenant,
    worker_engine,
)
from tests.server.graphql.groups import served
from tests.server.graphql.harness import Address, application, endpoint

__all__ = ["engine", "new_tenant", "owner", "served", "settings", "tenant", "worker_engine"]


@pytest.fixture(scope="session")
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    hub = Hub(settings.require("database_url"))
    await hub.open()
    yield hub
    await hub.close()


@pytest.fixture(scope="session")
async def address(engine: AsyncEngine, hub: Hub) -> AsyncIterator[Address]:
    async with serving(application(endpoint(engine, hub))) as server:
        yield Address(server.port)


@pytest.fixture
async def client(address: Address, tenant: Tenant) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=address.root, headers=tenant.headers, timeout=30) as client:
        yield client
