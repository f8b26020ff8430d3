"""PostgreSQL, Valkey and the AWS simulator for one machine, and their supervisor.

    async with embedded(data_dir) as services:
        await services.start("server", [sys.executable, "-m", ...], {"FREEHOLD_DATABASE_URL": services.app_url})
        await services.wait()

See `services.py`. Nothing outlives the process that entered `embedded`, however that process ends.
"""

from server.embedded.errors import DirectoryInUseError, EmbeddedError, PortInUseError, ServiceError
from server.embedded.ports import http_answers, require_free_port
from server.embedded.services import ALL_SERVICES, Services, embedded

__all__ = [
    "ALL_SERVICES",
    "DirectoryInUseError",
    "EmbeddedError",
    "PortInUseError",
    "ServiceError",
    "Services",
    "embedded",
    "http_answers",
    "require_free_port",
]
