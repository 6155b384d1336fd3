"""The system of record on SQLite or PostgreSQL: :class:`SqlStore`."""

from __future__ import annotations

from provenance.stores.sql.store import SqlStore, SqlTx, migrate

__all__ = ["SqlStore", "SqlTx", "migrate"]
