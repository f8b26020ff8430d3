"""what is certain of the calls of an intent: that a request is theirs, and that none of them made an account

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Of the requests that are there nobody knows whether they were found by their name: the e-mails of their accounts are
# compared. A call is known to have been the only one, or to have been refused, in this case alone.
NOTED = """
UPDATE create_intent SET outcome_unknown = true
WHERE called_at IS NOT NULL AND NOT (calls = 1 AND state IN ('CALLING', 'REQUESTED', 'FAILED'))
"""


def upgrade() -> None:
    for column in ("request_answered", "outcome_unknown"):
        op.add_column("create_intent", sa.Column(column, sa.Boolean(), server_default=sa.text("false"), nullable=False))
    # Row-level security hides the rows from their owner.
    op.execute("ALTER TABLE create_intent NO FORCE ROW LEVEL SECURITY")
    op.execute(NOTED)
    op.execute("ALTER TABLE create_intent FORCE ROW LEVEL SECURITY")
    _let_delete("state IN ('INTENT', 'FAILED') AND NOT outcome_unknown")


def downgrade() -> None:
    _let_delete("called_at IS NULL")
    op.drop_column("create_intent", "outcome_unknown")
    op.drop_column("create_intent", "request_answered")


def _let_delete(what: str) -> None:
    """A cancelled setup takes its intent along; the app role can delete no other."""
    op.execute("DROP POLICY uncalled ON create_intent")
    op.execute(f"CREATE POLICY uncalled ON create_intent AS RESTRICTIVE FOR DELETE TO freehold_app USING ({what})")
