"""setups cancelled before AWS was asked; their accounts hold no name, alias or e-mail back

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# In the order in which workers lock their rows.
STATUSES = {
    "setup": ("PENDING", "RUNNING", "WAITING", "COMPLETED", "FAILED"),
    "stage": ("PENDING", "RUNNING", "WAITING", "COMPLETED", "FAILED", "SKIPPED"),
    "account": ("INITIALIZING", "ONBOARDING", "DISCOVERED", "ACTIVE", "ERROR", "CLOSING", "CLOSED", "SUSPENDED"),
}
CANCELLED = "CANCELLED"
NOT_CANCELLED = sa.text("status <> 'CANCELLED'")
# Cancelled accounts and what points at them, in an order in which it can go.
FORGET = (
    "DELETE FROM stage USING setup WHERE setup_id = setup.id AND setup.status = 'CANCELLED'",
    "DELETE FROM setup USING account WHERE account_id = account.id AND account.status = 'CANCELLED'",
    "DELETE FROM event USING account WHERE account_id = account.id AND account.status = 'CANCELLED'",
    "DELETE FROM tag USING account WHERE account_id = account.id AND account.status = 'CANCELLED'",
    "DELETE FROM policy_attachment USING account WHERE account_id = account.id AND account.status = 'CANCELLED'",
    "DELETE FROM account WHERE status = 'CANCELLED'",
)
# With the counters that a trigger writes.
FORGOTTEN_FROM = ("stage", "setup", "event", "tag", "policy_attachment", "account", "account_type")


def upgrade() -> None:
    for table, statuses in STATUSES.items():
        _allow(table, (*statuses, CANCELLED))
    op.drop_constraint("uq_account_tenancy_id_alias", "account", type_="unique")
    op.create_index("uq_account_alias", "account", ["tenancy_id", "alias"], unique=True, postgresql_where=NOT_CANCELLED)
    _index_texts(where=NOT_CANCELLED)
    # Pages by name show every account.
    op.create_index(
        "ix_account_tenancy_id_name_id", "account", ["tenancy_id", sa.literal_column("lower(name)"), "id"], unique=False
    )
    # A cancelled setup takes its intent along. Of one that AWS may have heard, the app role can delete nothing.
    op.execute("GRANT DELETE ON create_intent TO freehold_app")
    op.execute(
        "CREATE POLICY uncalled ON create_intent AS RESTRICTIVE FOR DELETE TO freehold_app USING (called_at IS NULL)"
    )


def downgrade() -> None:
    op.execute("DROP POLICY uncalled ON create_intent")
    op.execute("REVOKE DELETE ON create_intent FROM freehold_app")
    _forget_cancelled()
    op.drop_index("ix_account_tenancy_id_name_id", table_name="account")
    _index_texts(where=None)
    op.drop_index("uq_account_alias", table_name="account")
    op.create_unique_constraint("uq_account_tenancy_id_alias", "account", ["tenancy_id", "alias"])
    for table, statuses in STATUSES.items():
        _allow(table, statuses)


def _allow(table: str, statuses: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{status}'" for status in statuses)
    op.drop_constraint(op.f(f"ck_{table}_status"), table, type_="check")
    op.create_check_constraint(op.f(f"ck_{table}_status"), table, f"status IN ({listed})")


def _index_texts(*, where: sa.TextClause | None) -> None:
    for column in ("name", "email"):
        op.drop_index(f"uq_account_{column}", table_name="account")
        op.create_index(
            f"uq_account_{column}",
            "account",
            ["tenancy_id", sa.literal_column(f"lower({column})")],
            unique=True,
            postgresql_where=where,
        )


def _forget_cancelled() -> None:
    """Delete what the older indexes cannot hold; nothing of it is in AWS."""
    # Row-level security hides the rows from their owner.
    for table in FORGOTTEN_FROM:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    for statement in FORGET:
        op.execute(statement)
    for table in FORGOTTEN_FROM:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
