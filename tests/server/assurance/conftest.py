"""A server of its own, with the stages that a worker declares, and a tenancy to work in."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.config import Settings
from tests.server.fixtures import (
    Tenant,
    engine,
    new_tenant,
    owner,
    running,
    settings,
    tenant,
    until_ready,
    worker_engine,
)
from workers.assurance.stages import STAGES
from workers.catalogue import declare_stages

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]

Ask = Callable[..., Awaitable[dict[str, Any]]]


# No longer than its module: a server relays the outbox of the database that other tests look at.
@pytest.fixture(scope="module")
async def server(settings: Settings, worker_engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    await declare_stages(worker_engine, STAGES)
    async with running(settings) as client:
        await until_ready(client)
        yield client


@pytest.fixture
def ask(server: httpx.AsyncClient, tenant: Tenant) -> Ask:
    """Runs a document as the tenant's administrator and returns its data; an error fails the test."""

    async def run(document: str, /, **variables: object) -> dict[str, Any]:
        body = {"query": document, "variables": variables}
        answer = (await server.post("/graphql", json=body, headers=tenant.headers)).json()
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    return run
