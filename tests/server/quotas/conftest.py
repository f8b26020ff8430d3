"""A server of its own and a tenancy, as the tests of account assurance have them."""

from tests.server.assurance.conftest import Ask, ask, engine, new_tenant, owner, server, settings, tenant, worker_engine

__all__ = ["Ask", "ask", "engine", "new_tenant", "owner", "server", "settings", "tenant", "worker_engine"]
