"""account types that are renamed and deleted: their states, the lease and the errors of the work on their units

Revision ID: 0021
Revises: 0020

Everything is of one table. Whoever has locked rows of it before is waited for, and whoever comes later waits here
without a lock that this waits for.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

NAME = "uq_account_type_name"
# What the rows hold from the first. A generated column, made an ordinary one after that, fills them without an update,
# from which row-level security would hide them. Types without a unit are due, as nobody else looks for them any more.
UNIT = "uq_account_type_organizational_unit_id"
NAMED = "CASE WHEN organizational_unit_id IS NOT NULL THEN name END"
DUE = "CASE WHEN organizational_unit_id IS NULL AND NOT foundation THEN to_timestamp(0) END"
COLUMNS = (
    *("state", "aws_name", "lease_owner", "lease_token", "lease_until", "hint_number", "next_attempt_at", "attempts"),
    "called_at",
    *("error_code", "error_message", "error_class", "error_aws_request_id"),
)


def upgrade() -> None:
    moment, zero = sa.DateTime(timezone=True), sa.text("0")
    # Taken whole at once, so that nothing is read between two of the changes that would need it anew.
    op.execute("LOCK TABLE account_type IN ACCESS EXCLUSIVE MODE")
    for column in (
        sa.Column("state", sa.Text(), server_default=sa.text("'ACTIVE'"), nullable=False),
        sa.Column("aws_name", sa.Text(), sa.Computed(NAMED, persisted=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("lease_until", moment, nullable=True),
        sa.Column("hint_number", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("next_attempt_at", moment, sa.Computed(DUE, persisted=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("called_at", moment, nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("error_aws_request_id", sa.Text(), nullable=True),
    ):
        op.add_column("account_type", column)
    for name in ("aws_name", "next_attempt_at"):
        op.execute(f"ALTER TABLE account_type ALTER COLUMN {name} DROP EXPRESSION")
    states, classes = "('ACTIVE', 'DELETING', 'DELETED')", "('TRANSIENT', 'PERMANENT', 'NEEDS_PERSON')"
    op.create_check_constraint(op.f("ck_account_type_state"), "account_type", f"state IN {states}")
    op.create_check_constraint(op.f("ck_account_type_error_class"), "account_type", f"error_class IN {classes}")
    # Partial, or its columns were a key, and who writes the unit would meet those who create accounts in deadlocks.
    op.create_index(
        UNIT,
        "account_type",
        ["tenancy_id", "organizational_unit_id"],
        unique=True,
        postgresql_where=sa.text("organizational_unit_id IS NOT NULL"),
    )
    op.create_index(
        "ix_account_type_due",
        "account_type",
        ["next_attempt_at"],
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.drop_index(NAME, "account_type")
    op.create_index(
        NAME,
        "account_type",
        ["tenancy_id", sa.literal_column("lower(name)")],
        unique=True,
        postgresql_where=sa.text("state <> 'DELETED'"),
    )


def downgrade() -> None:
    op.execute("LOCK TABLE account_type IN ACCESS EXCLUSIVE MODE")
    op.drop_index(NAME, "account_type")
    op.execute("ALTER TABLE account_type NO FORCE ROW LEVEL SECURITY")
    # What is gone stays as a type without a unit, whose name nobody else has.
    op.execute("UPDATE account_type SET name = left(name, 26) || ' ' || id WHERE state = 'DELETED'")
    op.execute("ALTER TABLE account_type FORCE ROW LEVEL SECURITY")
    op.create_index(NAME, "account_type", ["tenancy_id", sa.literal_column("lower(name)")], unique=True)
    op.drop_index("ix_account_type_due", "account_type")
    op.drop_index(UNIT, "account_type")
    for column in COLUMNS:
        op.drop_column("account_type", column)
