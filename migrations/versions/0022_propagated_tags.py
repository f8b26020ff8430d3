"""the tags of accounts that are brought to AWS: the keys of those that were

Revision ID: 0022
Revises: 0021

Which tenancies want that follows in a transaction of its own: whoever creates an account has read its tenancy and then
writes the account, and this one waits for the latter.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# A scalar subquery is evaluated once a statement, not once a row.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"


def upgrade() -> None:
    op.create_table(
        "propagated_tag",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_id"],
            ["account.tenancy_id", "account.id"],
            name=op.f("fk_propagated_tag_tenancy_id_account_id"),
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_propagated_tag_tenancy_id")),
        sa.PrimaryKeyConstraint("account_id", "key", name=op.f("pk_propagated_tag")),
    )
    op.execute("ALTER TABLE propagated_tag ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE propagated_tag FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenancy ON propagated_tag TO freehold_app "
        f"USING (tenancy_id = {CURRENT_TENANCY}) WITH CHECK (tenancy_id = {CURRENT_TENANCY})"
    )
    op.execute("CREATE POLICY worker ON propagated_tag TO freehold_worker USING (true) WITH CHECK (true)")
    op.execute("GRANT SELECT ON propagated_tag TO freehold_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON propagated_tag TO freehold_worker")


def downgrade() -> None:
    op.drop_table("propagated_tag")
