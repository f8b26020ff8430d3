"""comparisons of policies with AWS, and what they found

Revision ID: 0024
Revises: 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# A scalar subquery is evaluated once a statement, not once a row.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"
KINDS = "('DOCUMENT_CHANGED', 'POLICY_MISSING', 'DETACHED', 'ATTACHED_ELSEWHERE')"
# Table -> what the app role may do there: ask for a comparison, and for what was found to be mended.
TABLES = {"policy_comparison": "SELECT, INSERT, UPDATE", "policy_drift": "SELECT, UPDATE"}


def upgrade() -> None:
    # In the order in which who creates an account or attaches a policy locks them, before the foreign keys do.
    op.execute("LOCK TABLE account_type IN EXCLUSIVE MODE")
    op.execute("LOCK TABLE account, policy IN SHARE ROW EXCLUSIVE MODE")
    moment = sa.DateTime(timezone=True)
    zero = sa.text("0")
    op.create_table(
        "policy_comparison",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("next_attempt_at", moment, nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("requested_at", moment, nullable=True),
        sa.Column("started_at", moment, nullable=True),
        sa.Column("after_policy_id", sa.Uuid(), nullable=True),
        sa.Column("checked_at", moment, nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("lease_until", moment, nullable=True),
        sa.Column("hint_number", sa.Integer(), server_default=zero, nullable=False),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_policy_comparison_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_comparison")),
        sa.UniqueConstraint("tenancy_id", name=op.f("uq_policy_comparison_tenancy_id")),
    )
    op.create_table(
        "policy_drift",
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("aws_target_id", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("account_type_id", sa.Uuid(), nullable=True),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("target_tenancy_id", sa.Uuid(), nullable=True),
        sa.Column("found_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("document", sa.Text(), nullable=True),
        sa.Column("mending", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(f"kind IN {KINDS}", name=op.f("ck_policy_drift_kind")),
        sa.CheckConstraint("document IS JSON OBJECT", name=op.f("ck_policy_drift_document")),
        sa.CheckConstraint(
            "num_nonnulls(account_type_id, account_id, target_tenancy_id) <= 1", name=op.f("ck_policy_drift_target")
        ),
        _of("policy"),
        _of("account_type"),
        _of("account"),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_policy_drift_tenancy_id")),
        sa.ForeignKeyConstraint(["target_tenancy_id"], ["tenancy.id"], name=op.f("fk_policy_drift_target_tenancy_id")),
        sa.PrimaryKeyConstraint("policy_id", "kind", "aws_target_id", name=op.f("pk_policy_drift")),
    )
    op.create_index("ix_policy_drift_tenancy_id_found_at", "policy_drift", ["tenancy_id", "found_at"])
    op.create_index("ix_policy_drift_account_type_id", "policy_drift", ["account_type_id"])
    op.create_index("ix_policy_drift_account_id", "policy_drift", ["account_id"])
    for table, grants in TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenancy ON {table} TO freehold_app "
            f"USING (tenancy_id = {CURRENT_TENANCY}) WITH CHECK (tenancy_id = {CURRENT_TENANCY})"
        )
        op.execute(f"CREATE POLICY worker ON {table} TO freehold_worker USING (true) WITH CHECK (true)")
        op.execute(f"GRANT {grants} ON {table} TO freehold_app")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO freehold_worker")


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _of(table: str) -> sa.ForeignKeyConstraint:
    """What was found about a row goes with it."""
    return sa.ForeignKeyConstraint(
        ["tenancy_id", f"{table}_id"],
        [f"{table}.tenancy_id", f"{table}.id"],
        name=op.f(f"fk_policy_drift_tenancy_id_{table}_id"),
        ondelete="CASCADE",
    )
