"""whether the request of an intent is certainly that of its own call

Revision ID: 0015
Revises: 0009

Of the requests that are there nobody knows: the e-mails of their accounts are compared.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "create_intent", sa.Column("request_answered", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("create_intent", "request_answered")
