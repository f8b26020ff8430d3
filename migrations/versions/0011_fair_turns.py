"""which worker waits for the turn of another, so that it has the next one

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A turn is of the moment, and a worker whose turn is forgotten goes on: AWS refuses one of two that meet.
    op.execute("DELETE FROM organization_turn")
    # With a default for the workers of the version before, while they still run.
    op.add_column(
        "organization_turn", sa.Column("worker", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False)
    )
    op.add_column("organization_turn", sa.Column("wanted_by", sa.Uuid(), nullable=True))
    op.add_column("organization_turn", sa.Column("wanted_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for column in ("wanted_until", "wanted_by", "worker"):
        op.drop_column("organization_turn", column)
