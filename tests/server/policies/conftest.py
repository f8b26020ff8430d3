from tests.server.fixtures import engine, new_tenant, owner, settings, tenant, worker_engine

__all__ = ["engine", "new_tenant", "owner", "settings", "tenant", "worker_engine"]
