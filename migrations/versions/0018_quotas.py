"""what AWS allows an organization: the limits that it has told and those that somebody has set

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLES = ("quota", "quota_reading")
CODES = ("ACCOUNTS", "ORGANIZATIONAL_UNITS", "POLICIES", "POLICIES_PER_TARGET", "POLICY_SIZE")
# A scalar subquery is evaluated once a statement, not once a row.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"
# With the rights and the row-level security of whoever reads it.
VIEW = """
CREATE VIEW tenancy_quota WITH (security_invoker = true) AS
SELECT tenancy.id AS tenancy_id, known.code, known.position::integer AS position, quota.aws_limit, quota.read_at,
    quota.set_limit
FROM tenancy CROSS JOIN unnest('{{{codes}}}'::text[]) WITH ORDINALITY known (code, position)
LEFT JOIN quota ON quota.tenancy_id = tenancy.id AND quota.code = known.code
"""


def upgrade() -> None:
    listed = ", ".join(f"'{code}'" for code in CODES)
    op.create_table(
        "quota",
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("aws_limit", sa.Integer(), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("set_limit", sa.Integer(), nullable=True),
        sa.CheckConstraint(f"code IN ({listed})", name=op.f("ck_quota_code")),
        sa.CheckConstraint("aws_limit >= 0", name=op.f("ck_quota_aws_limit")),
        sa.CheckConstraint("set_limit > 0", name=op.f("ck_quota_set_limit")),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_quota_tenancy_id")),
        sa.PrimaryKeyConstraint("tenancy_id", "code", name=op.f("pk_quota")),
    )
    op.create_table(
        "quota_reading",
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_quota_reading_tenancy_id")),
        sa.PrimaryKeyConstraint("tenancy_id", name=op.f("pk_quota_reading")),
    )
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenancy ON {table} TO freehold_app "
            f"USING (tenancy_id = {CURRENT_TENANCY}) WITH CHECK (tenancy_id = {CURRENT_TENANCY})"
        )
        op.execute(f"CREATE POLICY worker ON {table} TO freehold_worker USING (true) WITH CHECK (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO freehold_worker")
    op.execute("GRANT SELECT, INSERT, UPDATE ON quota TO freehold_app")
    op.execute(VIEW.format(codes=",".join(CODES)))
    op.execute("GRANT SELECT ON tenancy_quota TO freehold_app, freehold_worker")


def downgrade() -> None:
    op.execute("DROP VIEW tenancy_quota")
    for table in reversed(TABLES):
        op.drop_table(table)
