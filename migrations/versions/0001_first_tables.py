"""first tables

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stage_definition",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("controls", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("permissions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("roles", sa.ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stage_definition")),
    )
    op.create_table(
        "tenancy",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("home_region", sa.Text(), nullable=False),
        sa.Column("regions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("email_template", sa.Text(), nullable=False),
        sa.Column("security_contact_name", sa.Text(), nullable=False),
        sa.Column("security_contact_email", sa.Text(), nullable=False),
        sa.Column("security_contact_phone", sa.Text(), nullable=False),
        sa.Column("aws_organization_id", sa.Text(), nullable=True),
        sa.Column("aws_root_id", sa.Text(), nullable=True),
        sa.Column("foundation_ou_id", sa.Text(), nullable=True),
        sa.Column("workloads_ou_id", sa.Text(), nullable=True),
        sa.Column("suspended_ou_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('INITIALIZING', 'ACTIVE')", name=op.f("ck_tenancy_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenancy")),
        sa.UniqueConstraint("aws_organization_id", name=op.f("uq_tenancy_aws_organization_id")),
        sa.UniqueConstraint("name", name=op.f("uq_tenancy_name")),
    )
    op.create_table(
        "account_type",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("foundation", sa.Boolean(), nullable=False),
        sa.Column("organizational_unit_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_account_type_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_type")),
        sa.UniqueConstraint("tenancy_id", "id", name=op.f("uq_account_type_tenancy_id_id")),
    )
    op.create_index(
        "ix_account_type_tenancy_id_created_at_id", "account_type", ["tenancy_id", "created_at", "id"], unique=False
    )
    op.create_index(
        "uq_account_type_name", "account_type", ["tenancy_id", sa.literal_column("lower(name)")], unique=True
    )
    op.create_table(
        "api_token",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('ADMIN', 'OPERATOR', 'USER', 'READONLY')", name=op.f("ck_api_token_role")),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_api_token_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_token_hash")),
    )
    op.create_index(
        "uq_api_token_name",
        "api_token",
        ["tenancy_id", "name"],
        unique=True,
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("argument", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_outbox_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "account",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("aws_account_id", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("account_type_id", sa.Uuid(), nullable=False),
        sa.Column("last_seq", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by_kind", sa.Text(), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("created_by_name", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("created_by_kind IN ('API_TOKEN', 'SYSTEM')", name=op.f("ck_account_created_by_kind")),
        sa.CheckConstraint("origin IN ('CREATED', 'ONBOARDED')", name=op.f("ck_account_origin")),
        sa.CheckConstraint("role IN ('MEMBER', 'SECURITY', 'LOGGING', 'MANAGEMENT')", name=op.f("ck_account_role")),
        sa.CheckConstraint(
            "status IN ('INITIALIZING', 'ONBOARDING', 'DISCOVERED', "
            "'ACTIVE', 'ERROR', 'CLOSING', 'CLOSED', 'SUSPENDED')",
            name=op.f("ck_account_status"),
        ),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_type_id"],
            ["account_type.tenancy_id", "account_type.id"],
            name=op.f("fk_account_tenancy_id_account_type_id"),
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_account_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("tenancy_id", "alias", name=op.f("uq_account_tenancy_id_alias")),
        sa.UniqueConstraint("tenancy_id", "aws_account_id", name=op.f("uq_account_tenancy_id_aws_account_id")),
        sa.UniqueConstraint("tenancy_id", "id", name=op.f("uq_account_tenancy_id_id")),
    )
    op.create_index(
        "ix_account_account_type_id_created_at_id", "account", ["account_type_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_account_tenancy_id_created_at_id", "account", ["tenancy_id", "created_at", "id"], unique=False)
    op.create_index("ix_account_tenancy_id_updated_at_id", "account", ["tenancy_id", "updated_at", "id"], unique=False)
    op.create_index("uq_account_email", "account", ["tenancy_id", sa.literal_column("lower(email)")], unique=True)
    op.create_index("uq_account_name", "account", ["tenancy_id", sa.literal_column("lower(name)")], unique=True)
    op.create_index(
        "uq_account_role", "account", ["tenancy_id", "role"], unique=True, postgresql_where=sa.text("role <> 'MEMBER'")
    )
    op.create_table(
        "create_intent",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("account_name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("calls", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("called_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('INTENT', 'CALLING', 'REQUESTED', 'DONE', 'FAILED')", name=op.f("ck_create_intent_state")
        ),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_id"],
            ["account.tenancy_id", "account.id"],
            name=op.f("fk_create_intent_tenancy_id_account_id"),
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_create_intent_tenancy_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_create_intent")),
    )
    op.create_index(
        "uq_create_intent_account_name",
        "create_intent",
        ["tenancy_id", "account_name"],
        unique=True,
        postgresql_where=sa.text("state <> 'DONE'"),
    )
    op.create_index(
        "uq_create_intent_email", "create_intent", ["tenancy_id", sa.literal_column("lower(email)")], unique=True
    )
    op.create_table(
        "event",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("account", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("setup", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("stage", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_id"],
            ["account.tenancy_id", "account.id"],
            name=op.f("fk_event_tenancy_id_account_id"),
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_event_tenancy_id")),
        sa.PrimaryKeyConstraint("account_id", "sequence", name=op.f("pk_event")),
    )
    op.create_table(
        "setup",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("hinted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hint_number", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("kind IN ('CREATE', 'ONBOARD', 'REASSURE')", name=op.f("ck_setup_kind")),
        sa.CheckConstraint(
            "status IN ('PENDING', 'RUNNING', 'WAITING', 'COMPLETED', 'FAILED')", name=op.f("ck_setup_status")
        ),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_id"],
            ["account.tenancy_id", "account.id"],
            name=op.f("fk_setup_tenancy_id_account_id"),
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_setup_tenancy_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_setup")),
        sa.UniqueConstraint("tenancy_id", "id", name=op.f("uq_setup_tenancy_id_id")),
    )
    op.create_index("ix_setup_account_id_requested_at_id", "setup", ["account_id", "requested_at", "id"], unique=False)
    op.create_index(
        "ix_setup_due",
        "setup",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('PENDING', 'RUNNING', 'WAITING')"),
    )
    op.create_index(
        "uq_setup_live",
        "setup",
        ["account_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('PENDING', 'RUNNING', 'WAITING')"),
    )
    op.create_table(
        "tag",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "account_id"],
            ["account.tenancy_id", "account.id"],
            name=op.f("fk_tag_tenancy_id_account_id"),
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_tag_tenancy_id")),
        sa.PrimaryKeyConstraint("account_id", "key", name=op.f("pk_tag")),
    )
    op.create_index(
        "ix_tag_tenancy_id_key_value_account_id", "tag", ["tenancy_id", "key", "value", "account_id"], unique=False
    )
    op.create_table(
        "stage",
        sa.Column("setup_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("controls", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("error_aws_request_id", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "error_class IN ('TRANSIENT', 'PERMANENT', 'NEEDS_PERSON')", name=op.f("ck_stage_error_class")
        ),
        sa.CheckConstraint(
            "status IN ('PENDING', 'RUNNING', 'WAITING', 'COMPLETED', 'FAILED', 'SKIPPED')",
            name=op.f("ck_stage_status"),
        ),
        sa.ForeignKeyConstraint(
            ["tenancy_id", "setup_id"], ["setup.tenancy_id", "setup.id"], name=op.f("fk_stage_tenancy_id_setup_id")
        ),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_stage_tenancy_id")),
        sa.PrimaryKeyConstraint("setup_id", "position", name=op.f("pk_stage")),
        sa.UniqueConstraint("setup_id", "name", name=op.f("uq_stage_setup_id_name")),
    )


def downgrade() -> None:
    op.drop_table("stage")
    op.drop_index("ix_tag_tenancy_id_key_value_account_id", table_name="tag")
    op.drop_table("tag")
    op.drop_index(
        "uq_setup_live", table_name="setup", postgresql_where=sa.text("status IN ('PENDING', 'RUNNING', 'WAITING')")
    )
    op.drop_index(
        "ix_setup_due", table_name="setup", postgresql_where=sa.text("status IN ('PENDING', 'RUNNING', 'WAITING')")
    )
    op.drop_index("ix_setup_account_id_requested_at_id", table_name="setup")
    op.drop_table("setup")
    op.drop_table("event")
    op.drop_index("uq_create_intent_email", table_name="create_intent")
    op.drop_index(
        "uq_create_intent_account_name", table_name="create_intent", postgresql_where=sa.text("state <> 'DONE'")
    )
    op.drop_table("create_intent")
    op.drop_index("uq_account_role", table_name="account", postgresql_where=sa.text("role <> 'MEMBER'"))
    op.drop_index("uq_account_name", table_name="account")
    op.drop_index("uq_account_email", table_name="account")
    op.drop_index("ix_account_tenancy_id_updated_at_id", table_name="account")
    op.drop_index("ix_account_tenancy_id_created_at_id", table_name="account")
    op.drop_index("ix_account_account_type_id_created_at_id", table_name="account")
    op.drop_table("account")
    op.drop_table("outbox")
    op.drop_index("uq_api_token_name", table_name="api_token", postgresql_where=sa.text("revoked_at IS NULL"))
    op.drop_table("api_token")
    op.drop_index("uq_account_type_name", table_name="account_type")
    op.drop_index("ix_account_type_tenancy_id_created_at_id", table_name="account_type")
    op.drop_table("account_type")
    op.drop_table("tenancy")
    op.drop_table("stage_definition")
