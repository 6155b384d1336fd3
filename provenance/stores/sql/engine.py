"""URL to engine: the settings of each database, and nothing that knows the tables."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    StaticPool,
    create_engine,
    event,
    exc,
    make_url,
)
from sqlalchemy.pool import ConnectionPoolEntry

from provenance import files
from provenance.errors import ConfigError, MissingExtraError, StoreUnavailable
from provenance.settings.urls import psycopg_options, sqlite_path
from provenance.stores.sql.errors import KEY

_EXPECTED: Final = "expected sqlite:///<path> or postgresql://<user>@<host>/<database>"
_POSTGRES: Final = ("postgres", "postgresql", "postgresql+psycopg")
_STAMP: Final = "stamp"
_FILE: Final = "file"
_PLACE: Final = ("st_dev", "st_ino")
_CHANGES: Final = ("st_ino", "st_size", "st_mtime_ns")
_SQLITE: Final = ("sqlite", "sqlite+pysqlite")
_IN_MEMORY: Final = (None, "", ":memory:")
_KEEPALIVE: Final[dict[str, object]] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_CONNECT: Final = _KEEPALIVE | {"connect_timeout": 5, "application_name": "ml-provenance"}


def parse_url(url: str) -> URL:
    """The URL with the driver this project uses.

    Raises:
        ConfigError: It is none, or of another kind of database. Never shows a password.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise ConfigError(KEY, f"found no database URL, {_EXPECTED}") from None
    if parsed.drivername in _POSTGRES:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in _SQLITE:
        raise ConfigError(KEY, f"found {parsed.drivername}://, {_EXPECTED}")
    if parsed.host or parsed.query or (parsed.database or "").startswith("file:"):
        raise ConfigError(KEY, f"found an SQLite URL with more than a path, {_EXPECTED}")
    path = sqlite_path(url)
    return parsed.set(drivername="sqlite", database=parsed.database if path is None else str(path))


def url_label(url: URL) -> str:
    """How messages name the database: without user and password."""
    if url.get_backend_name() == "sqlite":
        return f"database {url.database or ':memory:'}"
    port = f":{url.port}" if url.port else ""
    return f"database {url.database or ''} at {url.host or 'localhost'}{port}"


def make_engine(url: URL, wait_s: float, *, read_only: bool = False) -> Engine:
    """An engine; it connects at first use.

    Args:
        read_only: Open an SQLite file without writing to it or beside it; PostgreSQL is
            opened as ever.

    Raises:
        ConfigError, StoreUnavailable: The folder or file of an SQLite database cannot be made, or
            a PostgreSQL URL has an option that is none.
        MissingExtraError: psycopg is not installed.
    """
    if url.get_backend_name() == "sqlite":
        if read_only and url.database not in _IN_MEMORY:
            return _reading_engine(url, wait_s)
        return _sqlite_engine(url, wait_s)
    try:
        engine = create_engine(
            url,
            connect_args={
                **{k: v for k, v in _CONNECT.items() if k not in url.query},
                **psycopg_options(url.render_as_string(hide_password=False)),
            },
            pool_pre_ping=True,
            pool_timeout=wait_s,
            hide_parameters=True,
        )
    except ImportError:
        raise MissingExtraError("psycopg", "postgres") from None
    ends = {
        f"tcp_{k.removeprefix('tcp_')}": str(url.query.get(k, v)) for k, v in _KEEPALIVE.items()
    }

    @event.listens_for(engine, "connect")
    def give_up_alike(connection: Any, record: ConnectionPoolEntry) -> None:
        """The server, too, ends the connection of a client that is cut off: left to itself it keeps
        the locks of its transaction for two hours, and all others wait for the ledger's."""
        settings = ", ".join(f"set_config('{name}', %s, false)" for name in ends)
        connection.execute(f"SELECT {settings}", list(ends.values()))
        connection.commit()

    return engine


def _sqlite_engine(url: URL, wait_s: float) -> Engine:
    options: dict[str, Any] = {"hide_parameters": True}
    on_disk, path = url.database not in _IN_MEMORY, Path(url.database or "")
    if on_disk:
        _make_file(path)
        options |= {"pool_timeout": wait_s, "connect_args": {"timeout": wait_s}}
    else:
        options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    engine = create_engine(url, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # BEGIN and COMMIT are ours, not the driver's
        if on_disk:
            _use_wal(connection, wait_s)
            record.info[_FILE] = (path, _stat(path, *_PLACE))
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def _reading_engine(url: URL, wait_s: float) -> Engine:
    """Opens the file anew for each snapshot.

    Where a writer has its log (``-wal``) beside the file, it is read along (``mode=ro``).
    Without a log the file is all there is and is read as ``immutable=1``: with ``mode=ro``
    SQLite would make a log, or fail where the folder cannot be written
    (https://sqlite.org/wal.html, "Read-Only Databases"). SQLite does not notice a writer
    that begins in the meantime; :func:`unchanged` does.
    """
    path = Path(url.database or "")
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ConfigError(KEY, f"{path} is not a file that can be read, expected an SQLite file")
    engine = create_engine(url, hide_parameters=True, poolclass=NullPool)

    @event.listens_for(engine, "do_connect")
    def connect(dialect: object, record: ConnectionPoolEntry, *_: object) -> sqlite3.Connection:
        logged = path.with_name(f"{path.name}-wal").exists()
        record.info[_STAMP] = None if logged else (path, _stat(path, *_CHANGES))
        uri = (
            f"file:{quote(os.fsencode(path.absolute()))}?mode=ro{'' if logged else '&immutable=1'}"
        )
        return sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None)

    return engine


def unchanged(connection: Connection) -> bool:
    """False where somebody wrote to a file that was opened as immutable: what was read of it
    may be of two states."""
    path, stamp = connection.info.get(_STAMP) or (None, None)
    return path is None or (stamp is not None and _stat(path, *_CHANGES) == stamp)


def is_in_place(connection: Connection) -> bool:
    """False where the file that a connection writes to was deleted, or another put in its place:
    what is written would be nowhere once the connection ends."""
    path, opened = connection.info.get(_FILE) or (None, None)
    return path is None or _stat(path, *_PLACE) == opened


def _stat(path: Path, *names: str) -> tuple[int, ...] | None:
    """Of a file; None where it was deleted or moved away."""
    try:
        status = path.stat()
    except OSError:
        return None
    return tuple(getattr(status, name) for name in names)


def _make_file(path: Path) -> None:
    """The folder, and an empty file that only its owner reads (SQLite's side files follow).

    A file that is there is not opened: closing it would drop the locks that this process's
    connections have on it (fcntl(2)), and the next process to leave would take the log away
    from under them (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Closed before it gets its name, so before anybody can have a lock on it.
            files.create(path, b"")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        problem = f"{path} cannot be opened: {error.strerror}"
        if isinstance(
            error, PermissionError | NotADirectoryError | FileExistsError | IsADirectoryError
        ):
            raise ConfigError(KEY, problem) from error
        raise StoreUnavailable(f"database {problem}") from error


def _use_wal(connection: sqlite3.Connection, wait_s: float) -> None:
    """WAL is a property of the file; the switch ignores the busy timeout."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            if _journal_mode(connection, "") == "wal" or _journal_mode(connection, "=WAL") == "wal":
                return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            raise ConfigError(KEY, "SQLite cannot use WAL here; use a local disk or PostgreSQL")


def _journal_mode(connection: sqlite3.Connection, change: str) -> str:
    return str(connection.execute(f"PRAGMA journal_mode{change}").fetchone()[0])
