"""who asked last for what is to become of a policy and of an attachment

Revision ID: 0020
Revises: 0019

Of what is there nobody knows; a server of the version before, at work beside the new ones, does not say it either.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

TABLES = ("policy", "policy_attachment")
ACTORS = "('API_TOKEN', 'SYSTEM')"


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("requested_by_kind", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("requested_by_id", sa.Uuid(), nullable=True))
        op.add_column(table, sa.Column("requested_by_name", sa.Text(), nullable=True))
        op.create_check_constraint(op.f(f"ck_{table}_requested_by_kind"), table, f"requested_by_kind IN {ACTORS}")


def downgrade() -> None:
    for table in TABLES:
        for column in ("requested_by_kind", "requested_by_id", "requested_by_name"):
            op.drop_column(table, column)
