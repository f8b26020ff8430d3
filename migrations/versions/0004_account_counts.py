"""how many accounts an account type has, counted as they come and go

Revision ID: 0004
Revises: 0003

Counting 10,000 accounts takes PostgreSQL longer than reading a page of them. The triggers run as whoever writes, so
under row-level security; each locks the counters it writes in the order of their types' ids, so that two accounts that
are created or moved at once do not wait for each other in a circle.
"""

import sqlalchemy as sa
from alembic import op

from server.errors import FreeholdError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A statement may bring or remove many accounts; each counter is then written once.
COUNT_MANY = """
CREATE FUNCTION count_accounts() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    direction integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
    changed record;
BEGIN
    FOR changed IN SELECT account_type_id, count(*) AS number FROM changes GROUP BY 1 ORDER BY 1 LOOP
        UPDATE account_type SET account_count = account_count + direction * changed.number
        WHERE id = changed.account_type_id;
    END LOOP;
    RETURN NULL;
END $$
"""
COUNT_MOVE = """
CREATE FUNCTION count_moved_account() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM account_type WHERE id IN (OLD.account_type_id, NEW.account_type_id) ORDER BY id FOR NO KEY UPDATE;
    UPDATE account_type SET account_count = account_count + CASE id WHEN NEW.account_type_id THEN 1 ELSE -1 END
    WHERE id IN (OLD.account_type_id, NEW.account_type_id);
    RETURN NULL;
END $$
"""
TRIGGERS = (
    """CREATE TRIGGER count_created AFTER INSERT ON account REFERENCING NEW TABLE AS changes
    FOR EACH STATEMENT EXECUTE FUNCTION count_accounts()""",
    """CREATE TRIGGER count_deleted AFTER DELETE ON account REFERENCING OLD TABLE AS changes
    FOR EACH STATEMENT EXECUTE FUNCTION count_accounts()""",
    """CREATE TRIGGER count_moved AFTER UPDATE ON account FOR EACH ROW
    WHEN (OLD.account_type_id <> NEW.account_type_id) EXECUTE FUNCTION count_moved_account()""",
)


def upgrade() -> None:
    connection = op.get_bind()
    # Reads go on. Whoever creates or moves an account locks a row of its type before writing the account: either it has
    # done so and is waited for here, or it waits at its type without a lock that this waits for.
    op.execute("LOCK TABLE account_type IN EXCLUSIVE MODE")
    op.execute("LOCK TABLE account IN SHARE ROW EXCLUSIVE MODE")
    hidden = connection.scalar(sa.text("SELECT row_security_active('account')"))
    if hidden:
        # From an owner without BYPASSRLS, for whom reads have to wait.
        _row_level_security("NO FORCE")
    # Were rows hidden still, PostgreSQL would raise rather than leave them out.
    op.execute("SET LOCAL row_security = off")
    found = connection.execute(sa.text("SELECT account_type_id, count(*) FROM account GROUP BY 1")).all()
    op.execute(COUNT_MANY)
    op.execute(COUNT_MOVE)
    for trigger in TRIGGERS:
        op.execute(trigger)
    # Last, because from here on reads of the types wait for the commit.
    op.add_column("account_type", sa.Column("account_count", sa.Integer(), server_default=sa.text("0"), nullable=False))
    for account_type_id, number in found:
        keep = sa.text("UPDATE account_type SET account_count = :number WHERE id = :id")
        connection.execute(keep, {"number": number, "id": account_type_id})
    _check(connection)
    op.execute("SET LOCAL row_security = on")
    if hidden:
        _row_level_security("FORCE")


def downgrade() -> None:
    op.execute("DROP FUNCTION count_accounts() CASCADE")
    op.execute("DROP FUNCTION count_moved_account() CASCADE")
    op.drop_column("account_type", "account_count")


def _check(connection: sa.Connection) -> None:
    """Raise FreeholdError unless the counters add up to the accounts there are."""
    kept = connection.scalar(sa.text("SELECT coalesce(sum(account_count), 0) FROM account_type"))
    there = connection.scalar(sa.text("SELECT count(*) FROM account"))
    if kept != there:
        raise FreeholdError(
            f"the counters of account types add up to {kept}, but there are {there} accounts. Nothing was changed; "
            "look for triggers or rules on account_type that are not Freehold's."
        )


def _row_level_security(mode: str) -> None:
    for table in ("account", "account_type"):
        op.execute(f"ALTER TABLE {table} {mode} ROW LEVEL SECURITY")
