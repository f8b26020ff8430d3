"""no hints: every worker takes what is due by itself, so nobody asks when a wake-up was last sent

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("setup", "hinted_at")


def downgrade() -> None:
    op.add_column("setup", sa.Column("hinted_at", sa.DateTime(timezone=True), nullable=True))
