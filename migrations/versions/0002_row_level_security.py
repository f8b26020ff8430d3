"""row-level security, the grants of the two roles, and sign-in

Revision ID: 0002
Revises: 0001

`freehold_app` sees one tenancy at a time, the one named by the setting `app.tenancy_id`; unset or empty means none.
`freehold_worker` works for every tenancy and filters by itself. server/migrate.py makes both roles before this runs.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A scalar subquery is evaluated once a statement, not once a row. After SET LOCAL the setting is '', not NULL.
CURRENT_TENANCY = "(SELECT nullif(current_setting('app.tenancy_id', true), '')::uuid)"

# Table -> the column that names the tenancy, and what the app role may do there.
TABLES = {
    "tenancy": ("id", "SELECT"),
    "account_type": ("tenancy_id", "SELECT, INSERT, UPDATE, DELETE"),
    "account": ("tenancy_id", "SELECT, INSERT, UPDATE"),
    "tag": ("tenancy_id", "SELECT, INSERT, UPDATE, DELETE"),
    "setup": ("tenancy_id", "SELECT, INSERT, UPDATE"),
    "stage": ("tenancy_id", "SELECT, INSERT, UPDATE"),
    "event": ("tenancy_id", "SELECT, INSERT"),
    "create_intent": ("tenancy_id", "SELECT"),
    "api_token": ("tenancy_id", "SELECT"),
    "outbox": ("tenancy_id", "SELECT, INSERT, UPDATE, DELETE"),
}

SIGN_IN = """
CREATE FUNCTION sign_in(token_hash bytea)
RETURNS TABLE (token_id uuid, token_name text, tenancy_id uuid, role text)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
    WITH live AS (
        SELECT id, name, api_token.tenancy_id, api_token.role, last_used_at FROM api_token
        WHERE hash = token_hash AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    ), used AS (
        UPDATE api_token SET last_used_at = now() FROM live
        WHERE api_token.id = live.id AND (live.last_used_at IS NULL OR live.last_used_at < now() - interval '1 minute')
    )
    SELECT live.id, live.name, live.tenancy_id, live.role FROM live
$$
"""


def upgrade() -> None:
    for table, (column, grants) in TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenancy ON {table} TO freehold_app "
            f"USING ({column} = {CURRENT_TENANCY}) WITH CHECK ({column} = {CURRENT_TENANCY})"
        )
        op.execute(f"CREATE POLICY worker ON {table} TO freehold_worker USING (true) WITH CHECK (true)")
        op.execute(f"GRANT {grants} ON {table} TO freehold_app")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO freehold_worker")
    # Every server relays the whole outbox, which holds ids and nothing else.
    op.execute("CREATE POLICY relay ON outbox FOR SELECT TO freehold_app USING (true)")
    op.execute("CREATE POLICY relay_update ON outbox FOR UPDATE TO freehold_app USING (true) WITH CHECK (false)")
    op.execute("CREATE POLICY relay_delete ON outbox FOR DELETE TO freehold_app USING (true)")
    # The stages are the same for everybody.
    op.execute("GRANT SELECT ON stage_definition TO freehold_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON stage_definition TO freehold_worker")
    # Sign-in comes before the tenancy is known, so it runs as the owner.
    op.execute("CREATE POLICY sign_in ON api_token TO CURRENT_USER USING (true)")
    op.execute(SIGN_IN)
    op.execute("REVOKE EXECUTE ON FUNCTION sign_in(bytea) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION sign_in(bytea) TO freehold_app")


def downgrade() -> None:
    op.execute("DROP FUNCTION sign_in(bytea)")
    op.execute("DROP POLICY sign_in ON api_token")
    for policy in ("relay", "relay_update", "relay_delete"):
        op.execute(f"DROP POLICY {policy} ON outbox")
    for table in TABLES:
        for policy in ("tenancy", "worker"):
            op.execute(f"DROP POLICY {policy} ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        op.execute(f"REVOKE ALL ON {table} FROM freehold_app, freehold_worker")
    op.execute("REVOKE ALL ON stage_definition FROM freehold_app, freehold_worker")
