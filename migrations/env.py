"""Alembic's entry: runs the migrations on the connection that `server.migrate` opened."""

from alembic import context
from sqlalchemy import Connection

from server.models import Base, is_table

connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=Base.metadata, compare_server_default=True, include_object=is_table
)
with context.begin_transaction():
    context.run_migrations()
