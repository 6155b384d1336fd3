"""The index of weights, of the records that are in the database: those of archived runs come with
``provenance archive --restore``, as ``provenance fsck`` says."""

from __future__ import annotations

from alembic import op

from provenance.stores.sql.records import index_weights
from provenance.stores.sql.schema import epoch_weights

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table where 0001 did not, and fill it."""
    epoch_weights.create(op.get_bind(), checkfirst=True)
    index_weights(op.get_bind())
