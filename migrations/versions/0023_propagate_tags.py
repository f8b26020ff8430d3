"""whether a tenancy wants the tags of its accounts in AWS

Revision ID: 0023
Revises: 0022
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenancy", sa.Column("propagate_tags", sa.Boolean(), server_default=sa.false(), nullable=False))
    # The API changes nothing else of a tenancy.
    op.execute("GRANT UPDATE (propagate_tags) ON tenancy TO freehold_app")


def downgrade() -> None:
    op.drop_column("tenancy", "propagate_tags")
