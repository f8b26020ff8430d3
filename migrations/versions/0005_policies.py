"""policies and what they are attached to

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = ("policy", "policy_attachment")
# A scalar subquery is evaluated once a statement, not once a row.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"


def upgrade() -> None:
    op.create_table(
        "policy",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("managed", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('PENDING', 'ACTIVE', 'FAILED')", name=op.f("ck_policy_state")),
        sa.CheckConstraint("document IS JSON OBJECT", name=op.f("ck_policy_document")),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_policy_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy")),
        sa.UniqueConstraint("tenancy_id", "id", name=op.f("uq_policy_tenancy_id_id")),
    )
    op.create_index("uq_policy_name", "policy", ["tenancy_id", sa.literal_column("lower(name)")], unique=True)
    op.create_index("ix_policy_tenancy_id_created_at_id", "policy", ["tenancy_id", "created_at", "id"], unique=False)
    op.create_table(
        "policy_attachment",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("account_type_id", sa.Uuid(), nullable=True),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('PENDING', 'ACTIVE', 'DETACHING', 'FAILED')", name=op.f("ck_policy_attachment_state")
        ),
        sa.CheckConstraint("num_nonnulls(account_type_id, account_id) <= 1", name=op.f("ck_policy_attachment_target")),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_id"],
            ["account.tenancy_id", "account.id"],
            name=op.f("fk_policy_attachment_tenancy_id_account_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_type_id"],
            ["account_type.tenancy_id", "account_type.id"],
            name=op.f("fk_policy_attachment_tenancy_id_account_type_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "policy_id"],
            ["policy.tenancy_id", "policy.id"],
            name=op.f("fk_policy_attachment_tenancy_id_policy_id"),
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_policy_attachment_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_attachment")),
    )
    op.create_index(
        "ix_policy_attachment_account_id_policy_id", "policy_attachment", ["account_id", "policy_id"], unique=False
    )
    op.create_index(
        "ix_policy_attachment_account_type_id_policy_id",
        "policy_attachment",
        ["account_type_id", "policy_id"],
        unique=False,
    )
    op.create_index(
        "uq_policy_attachment_target",
        "policy_attachment",
        ["policy_id", "account_type_id", "account_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenancy ON {table} TO freehold_app "
            f"USING (tenancy_id = {CURRENT_TENANCY}) WITH CHECK (tenancy_id = {CURRENT_TENANCY})"
        )
        op.execute(f"CREATE POLICY worker ON {table} TO freehold_worker USING (true) WITH CHECK (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO freehold_app, freehold_worker")


def downgrade() -> None:
    op.drop_table("policy_attachment")
    op.drop_table("policy")
