"""the keys and values of tags with the number of accounts that have them, as views

Revision ID: 0017
Revises: 0016

With the rights and the row-level security of whoever reads them.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# View -> the columns of which each of its rows has others, the last of which makes its id.
VIEWS = {"tag_key": ("tag.key",), "tag_value": ("tag.key", "tag.value")}
COUNTED = """
SELECT md5({last})::uuid AS id, tag.tenancy_id, {columns}, count(*)::integer AS account_count
FROM tag JOIN account ON account.tenancy_id = tag.tenancy_id AND account.id = tag.account_id
WHERE account.status <> 'CANCELLED' GROUP BY tag.tenancy_id, {columns}
"""


def upgrade() -> None:
    for view, columns in VIEWS.items():
        counted = COUNTED.format(last=columns[-1], columns=", ".join(columns))
        op.execute(f"CREATE VIEW {view} WITH (security_invoker = true) AS {counted}")
        op.execute(f"GRANT SELECT ON {view} TO freehold_app, freehold_worker")


def downgrade() -> None:
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
