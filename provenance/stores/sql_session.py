"""One open transaction: the statements of the parts of a ledger transaction go through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

from provenance.errors import ProvenanceError, UsageError
from provenance.stores.sql_errors import translated


class Session:
    """Base of the parts of a transaction. Any database error dooms the whole transaction."""

    def __init__(self, connection: Connection, label: str, writable: bool) -> None:
        self._connection: Connection | None = connection
        self._label = label
        self._writable = writable
        self.failed: ProvenanceError | None = None

    def end(self) -> None:
        """The transaction is over; later calls raise UsageError."""
        self._connection = None

    def _read(
        self,
        statement: Executable,
        values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> CursorResult[Any]:
        if self._connection is None:
            raise UsageError("a transaction was used after its end")
        try:
            with translated(self._label):
                return self._connection.execute(statement, values)
        except ProvenanceError as error:
            self.failed = error
            raise

    def _write(
        self,
        statement: Executable,
        values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> CursorResult[Any]:
        if not self._writable:
            raise UsageError("a snapshot is read-only; write inside transaction()")
        return self._read(statement, values)

    def _upsert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT, which both engines spell alike."""
        if self._connection is not None and self._connection.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)
