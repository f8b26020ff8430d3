"""what AWS has refused of a comparison of policies

Revision ID: 0025
Revises: 0024
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TABLE = "policy_comparison"
CLASSES = "('TRANSIENT', 'PERMANENT', 'NEEDS_PERSON')"
ERROR = ("error_code", "error_message", "error_class", "error_aws_request_id")


def upgrade() -> None:
    for name in ERROR:
        op.add_column(TABLE, sa.Column(name, sa.Text(), nullable=True))
    op.add_column(TABLE, sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(op.f(f"ck_{TABLE}_error_class"), TABLE, f"error_class IN {CLASSES}")


def downgrade() -> None:
    for name in (*ERROR, "refused_at"):
        op.drop_column(TABLE, name)
