"""GraphQL types of account assurance: setups, stages, controls and events."""

from datetime import datetime

import strawberry

from server.accounts import models as accounts
from server.accounts.models import AccountRole
from server.accounts.types import Account
from server.assurance import models
from server.assurance.models import SetupKind, SetupStatus, StageStatus
from server.graphql.connections import Node
from server.graphql.scalars import expose
from server.leases import StageErrorClass
from server.planner.mapping import column, computed, elements, embedded, matches, snapshot, table, to_many, to_one

expose(
    SetupKind,
    "Why a setup runs.",
    CREATE="To create an account and harden it.",
    ONBOARD="To harden an account that existed before.",
    REASSURE="To check and harden an account once more.",
    GOVERN="To bring access in line; what the setup before it left undone follows.",
)
expose(
    SetupStatus,
    "How far a setup has come.",
    PENDING="Waits for a worker.",
    WAITING="A stage tries again at its `nextAttemptAt`.",
    FAILED="A stage has failed; nothing goes on until it is retried.",
    CANCELLED="Given up before AWS had made the account. It cannot be retried.",
)
expose(
    StageStatus,
    "How far a stage has come.",
    WAITING="Tries again at `nextAttemptAt`; `error` says why.",
    FAILED="Goes on only when it is retried; `error` says why.",
    SKIPPED="Does not apply to this account.",
    CANCELLED="Was not over, or had failed, when its setup was cancelled; `error` is that of its last attempt.",
)


@strawberry.type(description="A recommendation of a benchmark, such as CIS AWS Foundations 7.0, 3.1.4.")
class Control:
    benchmark: str
    version: str
    id: str = strawberry.field(description="Its number in that version of the benchmark; other versions number anew.")


@strawberry.type(description="Why a stage waits or has failed.")
class StageError:
    code: str = strawberry.field(description="AWS's own code where there is one.")
    message: str = strawberry.field(description="What happened, and what to do.")
    class_: StageErrorClass = column("class", graphql_name="class")
    aws_request_id: str | None = strawberry.field(description="What AWS Support asks for.")


@strawberry.type(description="One step of a setup.")
@table(models.Stage)
class SetupStage:
    name: str = strawberry.field(description="Stable; programs compare it.")
    title: str = strawberry.field(description="For people.")
    position: int = strawberry.field(description="From 1, in the order in which the stages run.")
    status: StageStatus
    attempts: int = strawberry.field(description="How often it has been started.")
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None = strawberry.field(description="When a WAITING stage tries again.")
    controls: list[Control] = elements("controls", description="What it brings the account in line with.")
    error: StageError | None = embedded("error_", when="code", description="The error of the last attempt.")


@strawberry.type(description="One run of account assurance on one account.")
@table(models.Setup, node="set")
class AccountSetup(Node):
    account: Account = to_one(on={"id": "account_id"})
    kind: SetupKind
    status: SetupStatus
    stages: list[SetupStage] = to_many(on={"setup_id": "id"}, order=("position",), description="In the order they run.")
    progress: int = computed(
        """select coalesce(100 * count(*) filter (where status in ('COMPLETED', 'SKIPPED')) / nullif(count(*), 0), 0)
        from stage where tenancy_id = {row}.tenancy_id and setup_id = {row}.id""",
        description="Per cent of its stages that are over, rounded down; for lists that do not show the stages.",
    )
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@strawberry.type(
    description=(
        "One change of a setup or of its account. The own fields of `account`, `setup` and `stage` are as they were"
        " right after it; what is reached through them, such as `setup.stages` or `account.setup`, is as it is now."
    )
)
@table(models.Event)
class SetupEvent:
    sequence: int = strawberry.field(description="1, 2, 3... for each account, without a gap.")
    at: datetime
    account: Account = snapshot(
        "account", description="As it was; its `accountType`, `tags`, `setup`, `setups` and `access` are those of now."
    )
    setup: AccountSetup | None = snapshot(
        "setup",
        description=(
            "The latest, as it was; its `account`, `stages` and `progress` are those of now. Null only for what changed"
            " before the account had a setup."
        ),
    )
    stage: SetupStage | None = snapshot(
        "stage", description="The stage that changed, as it was; null when only the setup or the account did."
    )


@strawberry.type(
    description=(
        "One change of an account: it was created, changed, cancelled, or its setup went on. The own fields of"
        " `account` are as they were right after it."
    )
)
@table(models.Event)
class AccountChange:
    # Null until the commit, and nobody sees it before.
    position: int = computed(
        "{row}.position",
        description="1, 2, 3... for the tenancy, without a gap; what a filter leaves out has its number too.",
    )
    sequence: int = strawberry.field(description="1, 2, 3... for each account, without a gap; as in `accountSetup`.")
    at: datetime
    account: Account = snapshot(
        "account", description="As it was; its `accountType`, `tags`, `setup`, `setups` and `access` are those of now."
    )
    matches: bool = matches(
        accounts.Account,
        "account",
        related={accounts.Tag: "tags"},
        earlier="{earlier}.account_id = {row}.account_id and {earlier}.sequence = {row}.sequence - 1",
        description=(
            "Whether the account, with its tags, met the filter right after the change; if not, it did before, and is"
            " now to be dropped from the list. True without a filter."
        ),
    )


@strawberry.type(description="A stage as the workers of this installation would run it.")
@table(models.StageDefinition, tenancy=None)
class StageDefinition:
    name: str = strawberry.field(description="Stable; programs compare it.")
    title: str = strawberry.field(description="For people.")
    description: str
    position: int
    controls: list[Control] = elements("controls", description="What it brings an account in line with.")
    permissions: list[str] = strawberry.field(description="The AWS permissions it needs, as IAM actions.")
    roles: list[AccountRole] = strawberry.field(description="The roles of accounts whose setups have it.")
    governs: bool = strawberry.field(description="Whether a setup of the kind GOVERN has it.")
