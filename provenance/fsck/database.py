"""The database as the checker reads it: its own SELECTs, in one read-only snapshot.

Nothing is created or migrated, and nothing of what writes the tables is used. A row whose values
are of the wrong type is a finding, not a crash: SQLite keeps what it is given.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, exc, make_url, text

from provenance.errors import FormatError, MissingExtraError, StoreUnavailable
from provenance.formats import json_text
from provenance.formats.fields import Fields
from provenance.fsck.findings import Finding, FindingKind
from provenance.fsck.rows import TABLES, VIEWS, Row
from provenance.settings.urls import psycopg_options, sqlite_path

_COLUMNS: Final = {"index": "entry"}
_FLAGS: Final = ("anchor", "counts", "cosigned")
_TOLD_OTHERWISE: Final = frozenset({"epoch", "coverage", "detail", "identity", *_FLAGS})
"""Columns that have another form than their field."""
_POSTGRES: Final = ("postgres", "postgresql", "postgresql+psycopg")
_WAIT_S: Final = 30.0
T = TypeVar("T", bound=Row)


@contextmanager
def snapshot(url: str) -> Iterator[Tables]:
    """All tables as they are at one moment.

    Raises:
        StoreUnavailable: There is no such database, it does not answer, or it is none of
            this project's. The message shows no password.
    """
    label, engine, sqlite = _opened(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(
                "BEGIN" if sqlite else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
            )
            stamps = _stamp(connection) if sqlite else None
            yield Tables(connection, sqlite)
            if sqlite and _stamp(connection) != stamps:
                raise StoreUnavailable(f"{label}: it was written to while it was read")
    except (exc.SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig else error
        said = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise StoreUnavailable(f"{label}: {said}") from None
    finally:
        engine.dispose()


def _opened(url: str) -> tuple[str, Engine, bool]:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            path = sqlite_path(url) or Path()
            return f"database {path}", _sqlite_engine(path), True
        label = f"database {parsed.database} at {parsed.host}"
        return label, _postgres_engine(parsed), False
    except (exc.SQLAlchemyError, ValueError):
        # `from None`: the cause's message quotes the URL.
        raise StoreUnavailable("database: database_url cannot be used") from None
    except ImportError:
        raise MissingExtraError("psycopg", "postgres") from None


def _sqlite_engine(path: Path) -> Engine:
    if not path.is_file():
        raise StoreUnavailable(f"there is no database at {path}")
    # Even to read, SQLite would make a log where there is none; the file is then all there is
    # (https://sqlite.org/wal.html, "Read-Only Databases").
    alone = not path.with_name(f"{path.name}-wal").exists()
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro{'&immutable=1' if alone else ''}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    return engine.execution_options(alone=path if alone else None)


def _stamp(connection: Connection) -> tuple[int, int] | None:
    """What changes where somebody writes to a file that is read as immutable."""
    path = connection.get_execution_options()["alone"]
    if path is None:
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _postgres_engine(parsed: URL) -> Engine:
    if parsed.drivername not in _POSTGRES:
        raise StoreUnavailable(f"database: found {parsed.drivername}, expected SQLite, PostgreSQL")
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": 5,
            "application_name": "ml-provenance fsck",
            **psycopg_options(parsed.render_as_string(hide_password=False)),
        },
        poolclass=NullPool,
        hide_parameters=True,
    )


@dataclass(slots=True)
class Tables:
    """The rows of one snapshot; ``findings`` are those that cannot be read."""

    connection: Connection
    sqlite: bool
    findings: list[Finding] = field(default_factory=list)

    def all(self, kind: type[T], run: UUID | None = None) -> list[T]:
        """The rows of one kind, in the order of their key; only those of ``run`` where given."""
        return self.of_runs(kind, None if run is None else (run,))[run]

    def of_runs(self, kind: type[T], runs: Sequence[UUID] | None) -> dict[UUID | None, list[T]]:
        """By run its rows of one kind, in the order of their key; all under None where no runs
        are asked for."""
        table, order = TABLES[kind]
        names = kind.__struct_fields__
        own = {run.hex if self.sqlite else run: run for run in runs or ()}
        values = {f"run{at}": value for at, value in enumerate(own)}
        where = "" if runs is None else f" WHERE run IN (:{', :'.join(values)})"
        columns = ["NULL" if runs is None else "run", *(_COLUMNS.get(n, n) for n in names)]
        statement = (
            f"SELECT {', '.join(columns)} FROM {VIEWS.get(kind, table)}{where} ORDER BY {order}"  # noqa: S608  constants of this module
        )
        told = _TOLD_OTHERWISE.intersection(names)
        found: dict[UUID | None, list[T]] = {run: [] for run in runs or (None,)}
        numbers: Counter[UUID | None] = Counter()
        for stored, *row in self.connection.execute(text(statement), values):
            run = own.get(stored)
            numbers[run] += 1
            try:
                item = dict(zip(names, row, strict=True))
                item |= {name: _value(name, item[name]) for name in told}
                found[run].append(msgspec.convert(item, kind, builtin_types=(bytes,)))
            except (msgspec.ValidationError, FormatError, ValueError) as error:
                subject = f"{table} row {numbers[run]}" + (f" of {run}" if run else "")
                self.findings.append(FindingKind.ROW_UNREADABLE(subject, str(error)))
        return found

    def orphans(self) -> Iterator[Finding]:
        """Rows that belong to a row that is not there. PostgreSQL keeps its own foreign keys."""
        if self.sqlite:  # keeps them of those alone who ask it to
            for table, row, parent, _ in self.connection.execute(text("PRAGMA foreign_key_check")):
                problem = f"belongs to a row of {parent} that is not there"
                yield FindingKind.ROW_ORPHAN(f"{table} rowid {row}", problem)


def _value(name: str, value: Any) -> Any:
    """A column's value in the form that its field has."""
    if name == "epoch":
        return None if value == -1 else value
    if name in _FLAGS and value in (0, 1):
        return bool(value)
    if name in ("coverage", "detail") or (name == "identity" and isinstance(value, str)):
        column = Fields.of({name: json_text.loads(str(value))}, "row")
        if name != "coverage":
            return column.object(name).raw
        return tuple(sorted(column.by_hex(name, 16, lambda f, key: f.integer(key, 1)).items()))
    return value
