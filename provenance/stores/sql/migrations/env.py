"""Alembic's entry: runs inside the transaction that ``revisions.py`` opened."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from provenance.stores.sql.schema import metadata

connection = context.config.attributes["connection"]
assert isinstance(connection, Connection)
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
