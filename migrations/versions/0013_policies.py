"""policies that are written here and rolled out to AWS: versions, the lease and the errors of a rollout, its events

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# A scalar subquery is evaluated once a statement, not once a row.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"
CLASSES = "('TRANSIENT', 'PERMANENT', 'NEEDS_PERSON')"
ACTORS = "('API_TOKEN', 'SYSTEM')"
# Table -> its states from here on, and before.
STATES = {
    "policy": (
        "('PENDING', 'ACTIVE', 'DELETING', 'FAILED', 'DELETED')",
        "('PENDING', 'ACTIVE', 'FAILED')",
    ),
    "policy_attachment": (
        "('PENDING', 'ACTIVE', 'DETACHING', 'FAILED', 'DETACHED')",
        "('PENDING', 'ACTIVE', 'DETACHING', 'FAILED')",
    ),
}
# Table -> what the app role may do there.
NEW = {"policy_version": "SELECT, INSERT", "policy_event": "SELECT, INSERT"}


def upgrade() -> None:
    for table, (states, _) in STATES.items():
        op.add_column(table, sa.Column("error_code", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("error_message", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("error_class", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("error_aws_request_id", sa.Text(), nullable=True))
        # Who made what is there is not known: it was never anybody but Freehold.
        op.add_column(table, sa.Column("created_by_kind", sa.Text(), server_default="SYSTEM", nullable=False))
        op.add_column(table, sa.Column("created_by_id", sa.Uuid(), nullable=True))
        op.add_column(table, sa.Column("created_by_name", sa.Text(), server_default="Freehold", nullable=False))
        op.alter_column(table, "created_by_kind", server_default=None)
        op.alter_column(table, "created_by_name", server_default=None)
        op.create_check_constraint(op.f(f"ck_{table}_error_class"), table, f"error_class IN {CLASSES}")
        op.create_check_constraint(op.f(f"ck_{table}_created_by_kind"), table, f"created_by_kind IN {ACTORS}")
        op.drop_constraint(op.f(f"ck_{table}_state"), table)
        op.create_check_constraint(op.f(f"ck_{table}_state"), table, f"state IN {states}")
    _extend_policy()
    op.create_table(
        "policy_version",
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("diff", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by_kind", sa.Text(), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("created_by_name", sa.Text(), nullable=False),
        sa.CheckConstraint(f"created_by_kind IN {ACTORS}", name=op.f("ck_policy_version_created_by_kind")),
        sa.CheckConstraint("document IS JSON OBJECT", name=op.f("ck_policy_version_document")),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "policy_id"],
            ["policy.tenancy_id", "policy.id"],
            name=op.f("fk_policy_version_tenancy_id_policy_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_policy_version_tenancy_id")),
        sa.PrimaryKeyConstraint("policy_id", "number", name=op.f("pk_policy_version")),
    )
    op.create_table(
        "policy_event",
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("policy", JSONB(), nullable=False),
        sa.Column("attachment", JSONB(), nullable=True),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_policy_event_tenancy_id")),
        sa.PrimaryKeyConstraint("policy_id", "sequence", name=op.f("pk_policy_event")),
    )
    # Row-level security hides the rows from their owner.
    op.execute("ALTER TABLE policy NO FORCE ROW LEVEL SECURITY")
    op.execute(
        "INSERT INTO policy_version SELECT id, 1, tenancy_id, name, description, document, '', created_at,"
        " created_by_kind, created_by_id, created_by_name FROM policy"
    )
    op.execute("UPDATE policy SET next_attempt_at = now() WHERE state = 'PENDING'")
    op.execute("ALTER TABLE policy FORCE ROW LEVEL SECURITY")
    for table, grants in NEW.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenancy ON {table} TO freehold_app "
            f"USING (tenancy_id = {CURRENT_TENANCY}) WITH CHECK (tenancy_id = {CURRENT_TENANCY})"
        )
        op.execute(f"CREATE POLICY worker ON {table} TO freehold_worker USING (true) WITH CHECK (true)")
        op.execute(f"GRANT {grants} ON {table} TO freehold_app")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO freehold_worker")


def _extend_policy() -> None:
    moment = sa.DateTime(timezone=True)
    zero = sa.text("0")
    for column in (
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("aws_name", sa.Text(), nullable=True),
        sa.Column("aws_policy_id", sa.Text(), nullable=True),
        sa.Column("aws_version", sa.Integer(), nullable=True),
        sa.Column("last_seq", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("lease_until", moment, nullable=True),
        sa.Column("next_attempt_at", moment, nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("hint_number", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("updated_at", moment, server_default=sa.text("now()"), nullable=False),
    ):
        op.add_column("policy", column)
    op.create_unique_constraint(op.f("uq_policy_tenancy_id_aws_policy_id"), "policy", ["tenancy_id", "aws_policy_id"])
    op.create_index(
        "ix_policy_due", "policy", ["next_attempt_at"], postgresql_where=sa.text("next_attempt_at IS NOT NULL")
    )


def downgrade() -> None:
    for table in NEW:
        op.drop_table(table)
    op.execute("ALTER TABLE policy NO FORCE ROW LEVEL SECURITY")
    # What the older states cannot say: that it goes.
    op.execute("UPDATE policy SET state = 'PENDING' WHERE state = 'DELETING'")
    op.execute("ALTER TABLE policy FORCE ROW LEVEL SECURITY")
    for table, (_, states) in STATES.items():
        op.drop_constraint(op.f(f"ck_{table}_state"), table)
        op.create_check_constraint(op.f(f"ck_{table}_state"), table, f"state IN {states}")
        for column in ("error_code", "error_message", "error_class", "error_aws_request_id"):
            op.drop_column(table, column)
        for column in ("created_by_kind", "created_by_id", "created_by_name"):
            op.drop_column(table, column)
    for column in (
        *("version", "aws_name", "aws_policy_id", "aws_version", "last_seq", "lease_owner", "lease_token"),
        *("lease_until", "next_attempt_at", "attempts", "hint_number", "updated_at"),
    ):
        op.drop_column("policy", column)
