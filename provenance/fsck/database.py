"""The database as the checker reads it: its own SELECTs, in one read-only snapshot.

Nothing is created or migrated, and nothing of what writes the tables is used. A row whose
values are of the wrong type is a finding, not a crash: SQLite keeps what it is given.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, exc, make_url, text

from provenance.errors import MissingExtraError, StoreUnavailable
from provenance.formats import json_text
from provenance.formats.record import Phase
from provenance.fsck.findings import Finding, FindingKind
from provenance.fsck.rows import (
    Anchor,
    Entry,
    EquivocationRow,
    HeadRow,
    NetworkRow,
    NonceRow,
    ParkedRow,
    ReceiptRow,
    RecordRow,
    Run,
    Version,
)

NO_EPOCH: Final = -1
_POSTGRES: Final = ("postgres", "postgresql", "postgresql+psycopg")
_WAIT_S: Final = 30.0
T = TypeVar("T")


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
            yield Tables(connection, sqlite)
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
            return f"database {parsed.database}", _sqlite_engine(parsed.database or ""), True
        label = f"database {parsed.database} at {parsed.host}"
        return label, _postgres_engine(parsed), False
    except (exc.SQLAlchemyError, ValueError):
        # `from None`: the cause's message quotes the URL.
        raise StoreUnavailable("database: database_url cannot be used") from None
    except ImportError:
        raise MissingExtraError("psycopg", "postgres") from None


def _sqlite_engine(name: str) -> Engine:
    path = Path(name)
    if not path.is_file():
        raise StoreUnavailable(f"there is no database at {path}")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)


def _postgres_engine(parsed: URL) -> Engine:
    if parsed.drivername not in _POSTGRES:
        raise StoreUnavailable(f"database: found {parsed.drivername}, expected SQLite, PostgreSQL")
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": 5, "application_name": "ml-provenance fsck"},
        poolclass=NullPool,
        hide_parameters=True,
    )


class _WrongType(Exception):
    """A column with a value that its table does not allow; never leaves this module."""


@dataclass(slots=True)
class Tables:
    """The rows of one snapshot; ``findings`` are those that cannot be read."""

    connection: Connection
    sqlite: bool
    findings: list[Finding] = field(default_factory=list)

    def runs(self) -> list[Run]:
        """By id."""
        return self._rows(
            "runs",
            "run, public_key, state, incomplete",
            "run",
            lambda r: Run(_uuid(r[0]), _bytes(r[1]), _text(r[2]), _maybe(_text, r[3])),
        )

    def records(self, run: UUID) -> list[RecordRow]:
        """Of one run, by producer and seq."""
        return self._rows(
            "records",
            "producer, seq, kind, epoch, rank, digest, data",
            "producer, seq",
            lambda r: RecordRow(
                run,
                _bytes(r[0]),
                _int(r[1]),
                _text(r[2]),
                _maybe(_int, r[3]),
                _int(r[4]),
                _bytes(r[5]),
                _bytes(r[6]),
            ),
            run,
        )

    def equivocations(self) -> list[EquivocationRow]:
        """Second values, by key."""
        return self._rows(
            "equivocations",
            "run, producer, seq, digest",
            "run, producer, seq",
            lambda r: EquivocationRow(_uuid(r[0]), _bytes(r[1]), _int(r[2]), _bytes(r[3])),
        )

    def parked(self) -> list[ParkedRow]:
        """By id."""
        return self._rows(
            "parked",
            "id, run, reason",
            "id",
            lambda r: ParkedRow(_text(r[0]), _maybe(_uuid, r[1]), _text(r[2])),
        )

    def entries(self) -> list[Entry]:
        """By index."""
        return self._rows(
            "ledger_entries",
            "entry, run, phase, epoch, root, anchor, coverage",
            "entry",
            lambda r: Entry(
                _int(r[0]),
                _uuid(r[1]),
                _phase(r[2]),
                None if r[3] == NO_EPOCH else _int(r[3]),
                _bytes(r[4]),
                bool(r[5]),
                _coverage(r[6]),
            ),
        )

    def heads(self) -> list[HeadRow]:
        """By size."""
        return self._rows(
            "heads",
            "size, root, note, frontier",
            "size",
            lambda r: HeadRow(_int(r[0]), _bytes(r[1]), _text(r[2]), _bytes(r[3])),
        )

    def anchors(self) -> list[Anchor]:
        """By network and size."""
        return self._rows(
            "anchors",
            "id, network, size, root, state, next_attempt_at, lease_owner, lease_until, reason, "
            "version_id",
            "network, size",
            lambda r: Anchor(
                _int(r[0]),
                _text(r[1]),
                _int(r[2]),
                _bytes(r[3]),
                _text(r[4]),
                _float(r[5]),
                _maybe(_text, r[6]),
                _maybe(_float, r[7]),
                _maybe(_text, r[8]),
                _maybe(_int, r[9]),
            ),
        )

    def versions(self) -> list[Version]:
        """By id: oldest first."""
        return self._rows(
            "anchor_versions",
            "id, anchor_id, network, payload, transaction_id, raw, key, nonce, detail",
            "id",
            lambda r: Version(
                _int(r[0]),
                _int(r[1]),
                _text(r[2]),
                _bytes(r[3]),
                _text(r[4]),
                _bytes(r[5]),
                _text(r[6]),
                _maybe(_int, r[7]),
                _object(r[8]),
            ),
        )

    def nonces(self) -> list[NonceRow]:
        """By network, key and nonce."""
        return self._rows(
            "nonces",
            "network, key, nonce, anchor_id",
            "network, key, nonce",
            lambda r: NonceRow(_text(r[0]), _text(r[1]), _int(r[2]), _int(r[3])),
        )

    def receipts(self) -> list[ReceiptRow]:
        """By entry and anchor."""
        return self._rows(
            "receipts",
            "entry, anchor_id, network, document",
            "entry, anchor_id",
            lambda r: ReceiptRow(_int(r[0]), _int(r[1]), _text(r[2]), _text(r[3])),
        )

    def networks(self) -> list[NetworkRow]:
        """By name."""
        return self._rows(
            "networks",
            "network, identity, paused",
            "network",
            lambda r: NetworkRow(_text(r[0]), _object(r[1]), _maybe(_text, r[2])),
        )

    def _rows(
        self,
        table: str,
        columns: str,
        order: str,
        read: Callable[[Sequence[Any]], T],
        run: UUID | None = None,
    ) -> list[T]:
        where = "" if run is None else " WHERE run = :run"
        statement = f"SELECT {columns} FROM {table}{where} ORDER BY {order}"  # noqa: S608
        values = {} if run is None else {"run": run.hex if self.sqlite else run}
        rows: list[T] = []
        for number, row in enumerate(self.connection.execute(text(statement), values), 1):
            try:
                rows.append(read(row))
            except _WrongType as error:
                subject = f"{table} row {number}" + (f" of {run}" if run else "")
                self.findings.append(Finding(FindingKind.ROW_UNREADABLE, subject, str(error)))
        return rows


def _maybe(read: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else read(value)


def _of(value: Any, kind: type[T] | tuple[type, ...], expected: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _WrongType(f"found a {type(value).__name__}, expected {expected}")
    return value


def _int(value: Any) -> int:
    return int(_of(value, int, "an integer"))


def _float(value: Any) -> float:
    return float(_of(value, (int, float), "a number"))


def _text(value: Any) -> str:
    return str(_of(value, str, "text"))


def _bytes(value: Any) -> bytes:
    return bytes(_of(value, (bytes, memoryview), "bytes"))


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(_text(value))
    except ValueError:
        raise _WrongType(f"found {value!r}, expected a UUID") from None


def _phase(value: Any) -> Phase:
    if value not in set(Phase):
        raise _WrongType(f"found phase {value!r}")
    return Phase(value)


def _coverage(value: Any) -> tuple[tuple[bytes, int], ...]:
    found = []
    for name, events in _object(value).items():
        if not re.fullmatch("[0-9a-f]{32}", name) or _int(events) < 0:
            raise _WrongType(f"found coverage {name[:40]}: {events}")
        found.append((bytes.fromhex(name), _int(events)))
    return tuple(sorted(found))


def _object(value: Any) -> Mapping[str, Any]:
    try:
        found = json_text.loads(_text(value))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _WrongType("found no JSON object")
    return found
