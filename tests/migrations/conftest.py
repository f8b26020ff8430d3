import pytest

from server.config import Settings
from tests.migrations.arrange import make_uncounted


@pytest.fixture
async def uncounted(empty: Settings, migrated: Settings) -> Settings:
    """Settings for a database with accounts and no counters; `migrated` has made the roles, the whole cluster's."""
    await make_uncounted(empty)
    return empty
