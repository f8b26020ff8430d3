"""What a stage of an account waits for: the organization of its tenancy."""

from server.tenancies.models import Tenancy
from workers.assurance.stage import StageStopped, wait


def initializing(tenancy: Tenancy) -> StageStopped:
    """The bootstrap wakes those who wait; that they look again with backoff is for when it could not."""
    return wait(
        "TENANCY_INITIALIZING",
        f"The organization of the tenancy {tenancy.name} is not ready yet; the setup goes on when it is.",
    )
