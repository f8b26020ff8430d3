"""whose turn it is to change an organization, so that workers do not meet there

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "organization_turn",
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_organization_turn_tenancy_id")),
        sa.PrimaryKeyConstraint("tenancy_id", name=op.f("pk_organization_turn")),
    )
    # The server has no business there, so not even a policy.
    op.execute("ALTER TABLE organization_turn ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE organization_turn FORCE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY worker ON organization_turn TO freehold_worker USING (true) WITH CHECK (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON organization_turn TO freehold_worker")


def downgrade() -> None:
    op.drop_table("organization_turn")
