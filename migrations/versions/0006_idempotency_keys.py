"""the keys under which requests were served once

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# A scalar subquery is evaluated once a statement, not once a row.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"


def upgrade() -> None:
    op.create_table(
        "idempotency_key",
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("mutation", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_id"],
            ["account.tenancy_id", "account.id"],
            name=op.f("fk_idempotency_key_tenancy_id_account_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_idempotency_key_tenancy_id")),
        sa.PrimaryKeyConstraint("tenancy_id", "key", name=op.f("pk_idempotency_key")),
    )
    op.create_index("ix_idempotency_key_created_at", "idempotency_key", ["created_at"], unique=False)
    op.execute("ALTER TABLE idempotency_key ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE idempotency_key FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenancy ON idempotency_key TO freehold_app "
        f"USING (tenancy_id = {CURRENT_TENANCY}) WITH CHECK (tenancy_id = {CURRENT_TENANCY})"
    )
    op.execute("CREATE POLICY worker ON idempotency_key TO freehold_worker USING (true) WITH CHECK (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE ON idempotency_key TO freehold_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_key TO freehold_worker")


def downgrade() -> None:
    op.drop_table("idempotency_key")
