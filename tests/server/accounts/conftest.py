from tests.server.assurance.conftest import ask, server
from tests.server.fixtures import engine, new_tenant, owner, settings, tenant, worker_engine

__all__ = ["ask", "engine", "new_tenant", "owner", "server", "settings", "tenant", "worker_engine"]
