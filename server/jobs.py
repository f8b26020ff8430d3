"""The contract between the API and the workers: job names, and the outbox between a commit and the queue.

A transaction that leaves work to do writes an `Outbox` row beside its change; the relay turns the row into an arq job.
The job is a wake-up that may be lost, doubled or late: it carries an id, and the worker re-reads the row behind it.
"""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from server.database import Base, Now

OUTBOX_CHANNEL = "freehold_outbox"
# A notification here names what has an event: the tenancy and the account, `<uuid> <uuid>`, or the policy.
EVENT_CHANNEL = "freehold_event"


class Job(StrEnum):
    """The names of the workers' job functions; each takes one id, as text."""

    RUN_SETUP = "run_setup"
    KEEP_ORGANIZATIONAL_UNIT = "keep_organizational_unit"
    ROLL_OUT_POLICY = "roll_out_policy"
    GOVERN_ACCOUNTS = "govern_accounts"
    COMPARE_POLICIES = "compare_policies"


class Outbox(Base):
    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger(), Identity(always=True), primary_key=True)
    tenancy_id: Mapped[UUID] = mapped_column(ForeignKey("tenancy.id"))
    job: Mapped[str]
    argument: Mapped[UUID]
    # arq drops a job whose id is queued or running; a new lease or hint makes a new id, so an orphan blocks nothing.
    job_id: Mapped[str]
    created_at: Mapped[Now]


async def enqueue(session: AsyncSession, tenancy_id: UUID, job: Job, argument: UUID, *, attempt: str = "0") -> None:
    """Enqueue a job in this transaction: it is sent if and when the transaction commits.

    Two jobs with the same name, argument and `attempt` are one while the first is queued.
    """
    session.add(Outbox(tenancy_id=tenancy_id, job=job, argument=argument, job_id=f"{job}:{argument}:{attempt}"))
    await session.flush()
    await session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": OUTBOX_CHANNEL})
