"""The first schema: as the code describes it, for as long as nothing is released."""

from __future__ import annotations

from alembic import op

from provenance.stores.sql.schema import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    metadata.create_all(op.get_bind(), checkfirst=False)
