"""One open transaction: statements, and the way from rows to values and back.

A value of :mod:`provenance.ports.values` and its table name their fields alike; the column
types of :mod:`provenance.stores.sql.schema` convert. So a field is spelled twice, in the
dataclass and in the table, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import (
    Column,
    Connection,
    CursorResult,
    Dialect,
    Executable,
    Select,
    Table,
    exc,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from provenance.errors import ProvenanceError, UsageError
from provenance.stores.sql.errors import translated

LEDGER_LOCK: Final = 0x4D4C5031
"""Key of the PostgreSQL advisory lock of the ledger: ``MLP1`` in ASCII."""
SCHEMA_LOCK: Final = LEDGER_LOCK + 1
"""Of the schema's: shared by all writers, a migration's alone."""
V = TypeVar("V")


def columns_of(kind: type, table: Table) -> list[Column[Any]]:
    """The columns that hold a value's fields, in their order."""
    return [table.c[field.name] for field in fields(kind)]


def values_in(kind: type, table: Table) -> Select[*tuple[Any, ...]]:
    """A query whose rows have a value's fields, in their order."""
    return select(*columns_of(kind, table))


def fields_of(value: Any) -> dict[str, Any]:
    """What to write of a value: its fields by name."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


@cache
def _statement(table: Table, dialect: Dialect) -> str:
    return str(insert(table).compile(dialect=dialect))


def _copy(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    cursor: Any = connection.connection.cursor()
    types = [column.type.compile(connection.dialect).lower() for column in table.c]
    copy = f"COPY {table.name} ({', '.join(table.c.keys())}) FROM STDIN (FORMAT BINARY)"
    driver_error = connection.dialect.loaded_dbapi.Error
    try:
        with cursor.copy(copy) as to:
            to.set_types(types)
            for row in rows:
                to.write_row(row)
    except driver_error as error:
        raise exc.DBAPIError.instance(None, None, error, driver_error) from error


class Session:
    """Base of the parts of a transaction. Any database error dooms the whole transaction.

    Args:
        label: How messages name the database; without credentials.
        writable: False for a snapshot, where writing raises UsageError.
    """

    def __init__(self, connection: Connection, label: str, writable: bool) -> None:
        self._connection: Connection | None = connection
        self._label = label
        self._writable = writable
        self.failed: ProvenanceError | None = None

    def end(self) -> None:
        """The transaction is over; later calls raise UsageError."""
        self._connection = None

    def _read(
        self, statement: Executable, values: Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        with self._asked() as connection:
            return connection.execute(statement, values)

    @contextmanager
    def _asked(self, *, writes: bool = False) -> Iterator[Connection]:
        """The connection; what it raises is translated, and dooms the transaction."""
        if writes and not self._writable:
            raise UsageError("a snapshot is read-only; write inside transaction()")
        if self._connection is None:
            raise UsageError("a transaction was used after its end")
        try:
            with translated(self._label):
                yield self._connection
        except ProvenanceError as error:
            self.failed = error
            raise

    def _stream(self, query: Executable) -> Iterator[Sequence[Any]]:
        """Rows a thousand at a time: as many as there are, in little memory."""
        rows = iter(self._read(query.execution_options(yield_per=1000)))
        while True:
            with translated(self._label):
                row = next(rows, None)
            if row is None:
                return
            yield row

    def _all(self, kind: Callable[..., V], query: Executable) -> list[V]:
        return [kind(*row) for row in self._read(query)]

    def _one(self, kind: Callable[..., V], query: Executable) -> V | None:
        row = self._read(query).one_or_none()
        return None if row is None else kind(*row)

    def _write(
        self, statement: Executable, values: Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        with self._asked(writes=True) as connection:
            return connection.execute(statement, values)

    @property
    def _postgresql(self) -> bool:
        return self._connection is not None and self._connection.dialect.name == "postgresql"

    def _share(self) -> None:
        """Before what all runs share is read to be written: one transaction at a time from here to
        its commit."""
        if self._postgresql:
            self._write(select(func.pg_advisory_xact_lock(LEDGER_LOCK)))

    def _add_once(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert; a row that has the key stays as it is."""
        self._write(self._insert(table).values(row).on_conflict_do_nothing())

    def _add_new(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows whose keys are not there: all columns, as the drivers take them.

        A row costs half of what an INSERT through SQLAlchemy costs in the driver, and on PostgreSQL
        COPY half of what an INSERT costs the server."""
        with self._asked(writes=True) as connection:
            if self._postgresql:
                _copy(connection, table, rows)
                return
            values = [tuple(v.hex if isinstance(v, UUID) else v for v in r) for r in rows]
            connection.exec_driver_sql(_statement(table, connection.dialect), values)

    def _replace(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert, or write all columns into the row that has the same key; all rows have the
        same columns."""
        if not rows:
            return
        key = table.primary_key.columns
        adding = self._insert(table)
        rest = {name: adding.excluded[name] for name in rows[0] if name not in key}
        self._write(adding.on_conflict_do_update(index_elements=list(key), set_=rest), rows)

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT, which both engines spell alike."""
        return postgresql.insert(table) if self._postgresql else sqlite.insert(table)
