"""the tags of an account beside every event, as they were

Revision ID: 0010
Revises: 0009

A trigger keeps them, so that a server of the version before, at work beside the new ones, writes them too.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KEEP = """
CREATE FUNCTION keep_tags() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.tags := coalesce(
        (
            SELECT jsonb_agg(jsonb_build_object('key', key, 'value', value) ORDER BY key) FROM tag
            WHERE tenancy_id = NEW.tenancy_id AND account_id = NEW.account_id
        ),
        '[]'
    );
    RETURN NEW;
END $$
"""
# What they were then nobody knows; with those of now, a replay ends with what is so.
KEEP_WHAT_IS_THERE = """
UPDATE event SET tags = of_now.tags
FROM (
    SELECT account_id, jsonb_agg(jsonb_build_object('key', key, 'value', value) ORDER BY key) AS tags
    FROM tag GROUP BY account_id
) of_now
WHERE event.account_id = of_now.account_id
"""


def upgrade() -> None:
    op.add_column("event", sa.Column("tags", JSONB(), server_default=sa.text("'[]'"), nullable=False))
    # Row-level security hides the rows from their owner.
    for table in ("tag", "event"):
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(KEEP_WHAT_IS_THERE)
    for table in ("tag", "event"):
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(KEEP)
    op.execute("CREATE TRIGGER keep_tags BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION keep_tags()")


def downgrade() -> None:
    op.execute("DROP FUNCTION keep_tags() CASCADE")
    op.drop_column("event", "tags")
