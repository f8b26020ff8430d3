"""the past requests of an intent; a refused intent holds nothing back

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

EMAIL, NAME = "uq_create_intent_email", "uq_create_intent_account_name"


def upgrade() -> None:
    op.add_column(
        "create_intent",
        sa.Column("past_requests", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )
    # In these states the request is one whose outcome was known. Row-level security hides the rows from their owner.
    op.execute("ALTER TABLE create_intent NO FORCE ROW LEVEL SECURITY")
    op.execute(
        "UPDATE create_intent SET past_requests = ARRAY[request_id], request_id = NULL "
        "WHERE request_id IS NOT NULL AND state IN ('INTENT', 'CALLING', 'FAILED')"
    )
    op.execute("ALTER TABLE create_intent FORCE ROW LEVEL SECURITY")
    _index(email_where="state <> 'FAILED'", name_where="state NOT IN ('DONE', 'FAILED')")


def downgrade() -> None:
    # What the older indexes cannot hold; nothing of it is in AWS.
    op.execute("ALTER TABLE create_intent NO FORCE ROW LEVEL SECURITY")
    op.execute("DELETE FROM create_intent WHERE state = 'FAILED'")
    op.execute("ALTER TABLE create_intent FORCE ROW LEVEL SECURITY")
    _index(email_where=None, name_where="state <> 'DONE'")
    op.drop_column("create_intent", "past_requests")


def _index(*, email_where: str | None, name_where: str) -> None:
    for name in (EMAIL, NAME):
        op.drop_index(name, table_name="create_intent")
    op.create_index(
        EMAIL,
        "create_intent",
        ["tenancy_id", sa.literal_column("lower(email)")],
        unique=True,
        postgresql_where=None if email_where is None else sa.text(email_where),
    )
    op.create_index(
        NAME, "create_intent", ["tenancy_id", "account_name"], unique=True, postgresql_where=sa.text(name_where)
    )
