"""A server of its own, and a tenancy to make account types in, as the tests of access have them."""

from tests.server.access.conftest import (
    ask,
    done,
    engine,
    new_tenant,
    owner,
    run,
    server,
    settings,
    tenant,
    worker_engine,
)

__all__ = ["ask", "done", "engine", "new_tenant", "owner", "run", "server", "settings", "tenant", "worker_engine"]
