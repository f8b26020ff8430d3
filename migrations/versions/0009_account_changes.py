"""events of accounts without a setup, and the position of each event among all of its tenancy

Revision ID: 0009
Revises: 0008

The trigger runs when its transaction commits and holds the tenancy's counter from there to the end of the commit, so
positions have no gap and are in the order of commits: who has read one has seen all that are lower. Writers wait for
no more than a commit, in which the notification of an event lets them in one by one anyway; and as the counter is the
last lock that any of them takes, they never wait in a circle.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# A scalar subquery is evaluated once a statement, not once a row.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"

# As the clock told, but those of one account never out of their order.
NUMBER_WHAT_IS_THERE = """
UPDATE event SET position = numbered.position
FROM (
    SELECT account_id, sequence,
        row_number() OVER (PARTITION BY tenancy_id ORDER BY reached, account_id, sequence) AS position
    FROM (SELECT *, max(at) OVER (PARTITION BY account_id ORDER BY sequence) AS reached FROM event) timed
) numbered
WHERE event.account_id = numbered.account_id AND event.sequence = numbered.sequence
"""
NUMBER = """
CREATE FUNCTION number_event() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    next integer;
BEGIN
    INSERT INTO event_counter AS counter (tenancy_id, last_position) VALUES (NEW.tenancy_id, 1)
    ON CONFLICT (tenancy_id) DO UPDATE SET last_position = counter.last_position + 1
    RETURNING last_position INTO STRICT next;
    UPDATE event SET position = next WHERE account_id = NEW.account_id AND sequence = NEW.sequence;
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE CONSTRAINT TRIGGER number_event AFTER INSERT ON event
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION number_event()
"""


def upgrade() -> None:
    op.create_table(
        "event_counter",
        sa.Column("tenancy_id", sa.Uuid(), nullable=False),
        sa.Column("last_position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenancy_id"], ["tenancy.id"], name=op.f("fk_event_counter_tenancy_id")),
        sa.PrimaryKeyConstraint("tenancy_id", name=op.f("pk_event_counter")),
    )
    op.alter_column("event", "setup", nullable=True)
    op.add_column("event", sa.Column("position", sa.Integer(), nullable=True))
    # Row-level security hides the rows from their owner.
    op.execute("ALTER TABLE event NO FORCE ROW LEVEL SECURITY")
    op.execute(NUMBER_WHAT_IS_THERE)
    op.execute("INSERT INTO event_counter SELECT tenancy_id, count(*) FROM event GROUP BY 1")
    op.execute("ALTER TABLE event FORCE ROW LEVEL SECURITY")
    op.create_unique_constraint(op.f("uq_event_tenancy_id_position"), "event", ["tenancy_id", "position"])
    op.execute(NUMBER)
    op.execute(TRIGGER)
    op.execute("ALTER TABLE event_counter ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE event_counter FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenancy ON event_counter TO freehold_app "
        f"USING (tenancy_id = {CURRENT_TENANCY}) WITH CHECK (tenancy_id = {CURRENT_TENANCY})"
    )
    op.execute("CREATE POLICY worker ON event_counter TO freehold_worker USING (true) WITH CHECK (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE ON event_counter TO freehold_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON event_counter TO freehold_worker")
    # An event is given its position once and stays as it is otherwise.
    op.execute("GRANT UPDATE (position) ON event TO freehold_app")
    op.execute(
        "CREATE POLICY numbered ON event AS RESTRICTIVE FOR UPDATE TO freehold_app "
        "USING (position IS NULL) WITH CHECK (true)"
    )


def downgrade() -> None:
    op.execute("DROP POLICY numbered ON event")
    op.execute("REVOKE UPDATE (position) ON event FROM freehold_app")
    op.execute("DROP FUNCTION number_event() CASCADE")
    op.drop_column("event", "position")
    op.drop_table("event_counter")
    # What the older column cannot hold: the first events of an account, from before its first setup.
    op.execute("ALTER TABLE event NO FORCE ROW LEVEL SECURITY")
    op.execute("DELETE FROM event WHERE setup IS NULL")
    op.execute("ALTER TABLE event FORCE ROW LEVEL SECURITY")
    op.alter_column("event", "setup", nullable=False)
