"""groups, users, access, and setups that bring an account's governance in line

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLES = ("user_group", "person", "group_membership", "access_grant", "account_access")
KINDS = ("CREATE", "ONBOARD", "REASSURE")
# A scalar subquery is evaluated once a statement, not once a row.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"

# With the rights of whoever reads it, and so under row-level security.
ACCESS = """
CREATE VIEW access WITH (security_invoker = true) AS
SELECT 'ACCOUNT_TYPE' AS target, granted.tenancy_id, granted.account_type_id, NULL::uuid AS account_id,
    granted.group_id, user_group.name AS group_name, user_group.slug AS group_slug, granted.role,
    granted.managed_policy_arn, NULL AS cause, NULL AS state, NULL AS error
FROM access_grant granted JOIN user_group ON user_group.id = granted.group_id
UNION ALL
SELECT 'ACCOUNT', had.tenancy_id, had.account_type_id, had.account_id,
    had.group_id, user_group.name, user_group.slug, had.role,
    had.managed_policy_arn, had.cause, had.state, had.error
FROM account_access had JOIN user_group ON user_group.id = had.group_id
"""
# Setups of the kind that goes, and what points at them, in an order in which it can go.
FORGET = (
    "DELETE FROM stage USING setup WHERE setup_id = setup.id AND setup.kind = 'GOVERN'",
    "DELETE FROM setup WHERE kind = 'GOVERN'",
)


def upgrade() -> None:
    _allow_kinds((*KINDS, "GOVERN"))
    op.add_column("stage_definition", sa.Column("governs", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("account", sa.Column("governance_due_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_account_governance_due_at",
        "account",
        ["governance_due_at"],
        unique=False,
        postgresql_where=sa.text("governance_due_at IS NOT NULL"),
    )
    _create_groups()
    _create_access()
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenancy ON {table} TO freehold_app "
            f"USING (tenancy_id = {CURRENT_TENANCY}) WITH CHECK (tenancy_id = {CURRENT_TENANCY})"
        )
        op.execute(f"CREATE POLICY worker ON {table} TO freehold_worker USING (true) WITH CHECK (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO freehold_app, freehold_worker")
    op.execute(ACCESS)
    op.execute("GRANT SELECT ON access TO freehold_app, freehold_worker")


def downgrade() -> None:
    op.execute("DROP VIEW access")
    for table in reversed(TABLES):
        op.drop_table(table)
    op.drop_column("account", "governance_due_at")
    op.drop_column("stage_definition", "governs")
    # Row-level security hides the rows from their owner.
    for table in ("stage", "setup"):
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    for statement in FORGET:
        op.execute(statement)
    for table in ("stage", "setup"):
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    _allow_kinds(KINDS)


def _allow_kinds(kinds: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint(op.f("ck_setup_kind"), "setup", type_="check")
    op.create_check_constraint(op.f("ck_setup_kind"), "setup", f"kind IN ({listed})")


def _create_groups() -> None:
    op.create_table(
        "user_group",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_user_group_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_group")),
        sa.UniqueConstraint("tenancy_id", "id", name=op.f("uq_user_group_tenancy_id_id")),
        sa.UniqueConstraint("tenancy_id", "slug", name=op.f("uq_user_group_tenancy_id_slug")),
    )
    op.create_index("uq_user_group_name", "user_group", ["tenancy_id", sa.literal_column("lower(name)")], unique=True)
    op.create_index("ix_user_group_tenancy_id_created_at_id", "user_group", ["tenancy_id", "created_at", "id"])
    op.create_table(
        "person",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_person_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person")),
        sa.UniqueConstraint("tenancy_id", "id", name=op.f("uq_person_tenancy_id_id")),
    )
    op.create_index("uq_person_email", "person", ["tenancy_id", sa.literal_column("lower(email)")], unique=True)
    op.create_index("ix_person_tenancy_id_name_id", "person", ["tenancy_id", sa.literal_column("lower(name)"), "id"])
    op.create_index("ix_person_tenancy_id_created_at_id", "person", ["tenancy_id", "created_at", "id"])
    op.create_table(
        "group_membership",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_group_membership_tenancy_id")),
        _group("group_membership"),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "user_id"],
            ["person.tenancy_id", "person.id"],
            name=op.f("fk_group_membership_tenancy_id_user_id"),
        ),
        sa.PrimaryKeyConstraint("group_id", "user_id", name=op.f("pk_group_membership")),
    )
    op.create_index("ix_group_membership_user_id_group_id", "group_membership", ["user_id", "group_id"])


def _create_access() -> None:
    op.create_table(
        "access_grant",
        sa.Column("account_type_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("managed_policy_arn", sa.Text(), nullable=False),
        sa.Column("apply_to_new_accounts", sa.Boolean(), nullable=False),
        _created_at(),
        _one_of("access_grant", "role", "ADMIN", "DEVELOPER", "READONLY"),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_access_grant_tenancy_id")),
        _account_type("access_grant"),
        _group("access_grant"),
        sa.PrimaryKeyConstraint("account_type_id", "group_id", "role", name=op.f("pk_access_grant")),
    )
    op.create_index("ix_access_grant_group_id", "access_grant", ["group_id"])
    op.create_table(
        "account_access",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("account_type_id", sa.Uuid(), nullable=False),
        sa.Column("managed_policy_arn", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        _one_of("account_access", "role", "ADMIN", "DEVELOPER", "READONLY"),
        _one_of("account_access", "cause", "GRANTED", "JOINED", "REVOKED", "LEFT"),
        _one_of("account_access", "state", "PENDING", "ACTIVE", "REMOVING", "FAILED"),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_account_access_tenancy_id")),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_id"],
            ["account.tenancy_id", "account.id"],
            name=op.f("fk_account_access_tenancy_id_account_id"),
        ),
        _account_type("account_access"),
        _group("account_access"),
        sa.PrimaryKeyConstraint("account_id", "group_id", "role", name=op.f("pk_account_access")),
    )
    op.create_index(
        "ix_account_access_account_type_id_group_id_role", "account_access", ["account_type_id", "group_id", "role"]
    )
    op.create_index("ix_account_access_group_id", "account_access", ["group_id"])


def _created_at() -> sa.Column[object]:
    return sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def _one_of(table: str, column: str, *values: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{column}"))


def _group(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenancy_id", "group_id"],
        ["user_group.tenancy_id", "user_group.id"],
        name=op.f(f"fk_{table}_tenancy_id_group_id"),
    )


def _account_type(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenancy_id", "account_type_id"],
        ["account_type.tenancy_id", "account_type.id"],
        name=op.f(f"fk_{table}_tenancy_id_account_type_id"),
        ondelete="CASCADE",
    )
