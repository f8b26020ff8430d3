"""What a stage of an account waits for: the organization of its tenancy."""

from server.tenancies.models import Tenancy
from workers.assurance.stage import StageStopped, wait

# The bootstrap wakes those who wait; this is for when it could not.
LOOK_AGAIN_SECONDS = 3.0


def initializing(tenancy: Tenancy) -> StageStopped:
    return wait(
        "TENANCY_INITIALIZING",
        f"The organization of the tenancy {tenancy.name} is not ready yet; the setup goes on when it is.",
        LOOK_AGAIN_SECONDS,
    )
