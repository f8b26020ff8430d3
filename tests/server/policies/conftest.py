"""A server of its own, and a tenancy with policies to work on."""

from tests.server.assurance.conftest import Ask, ask, server
from tests.server.fixtures import engine, new_tenant, owner, settings, tenant, worker_engine

__all__ = ["Ask", "ask", "engine", "new_tenant", "owner", "server", "settings", "tenant", "worker_engine"]
