"""the policies that reach an account, as a view

Revision ID: 0015
Revises: 0014

With the rights and the row-level security of whoever reads it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# How an attachment reaches an account: through what, at which level from the root, and the condition.
WAYS = (
    ("TENANCY", 1, "attachment.account_type_id IS NULL AND attachment.account_id IS NULL"),
    ("ACCOUNT_TYPE", 2, "attachment.account_type_id = account.account_type_id"),
    ("ACCOUNT", 3, "attachment.account_id = account.id"),
)
EACH = """
SELECT attachment.tenancy_id, account.id AS account_id, attachment.id AS attachment_id, attachment.policy_id,
    '{}' AS via, {} AS level, attachment.state, attachment.created_at AS attached_at
FROM account JOIN policy_attachment attachment ON attachment.tenancy_id = account.tenancy_id AND {}
WHERE account.role <> 'MANAGEMENT'
"""


def upgrade() -> None:
    op.create_index(
        "ix_policy_attachment_tenancy",
        "policy_attachment",
        ["tenancy_id"],
        postgresql_where=sa.text("account_type_id IS NULL AND account_id IS NULL"),
    )
    ways = " UNION ALL ".join(EACH.format(*way) for way in WAYS)
    op.execute(f"CREATE VIEW effective_policy WITH (security_invoker = true) AS {ways}")
    op.execute("GRANT SELECT ON effective_policy TO freehold_app, freehold_worker")


def downgrade() -> None:
    op.execute("DROP VIEW effective_policy")
    op.drop_index("ix_policy_attachment_tenancy", "policy_attachment")
