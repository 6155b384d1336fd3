"""The system of record on SQLite or PostgreSQL.

Life of a write: :meth:`SqlStore.transaction` takes its lock, runs the block, and commits with the
database's full durability (SQLite: WAL with ``synchronous=FULL``). An exception, or any database
error inside the block even when it was caught, rolls all of it back. A snapshot sees one state of
the database and waits for no writer.

The lock is the one writer's on SQLite (``BEGIN IMMEDIATE``). PostgreSQL has two kinds, advisory and
until the commit: the ledger's, of every transaction that names no run, and one for each run. A
run's transaction takes its own first, and the ledger's where it comes to what all runs share
(:meth:`.session.Session._share`): in this order alone, so that no two wait for each other. Before
both each shares the schema's with all others: a migration has it alone, and who comes after it
writes nothing where the schema is another release's.

A store MAY be used by many threads, and on both sides of a fork: the child opens its own
connections and MUST NOT touch those of the parent. A block that was open across the fork
belongs to the parent; on SQLite no other thread may be inside one then.

``sqlite://`` is a database in memory on one connection, for tests: transactions and
snapshots take turns, and a forked child cannot use it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, exc, text

from provenance.bundle.archive import Archive
from provenance.errors import StoreUnavailable, UsageError
from provenance.ports.store import LedgerTx
from provenance.settings.urls import sqlite_path
from provenance.stores.sql.engine import is_in_place, make_engine, parse_url, unchanged, url_label
from provenance.stores.sql.errors import DATABASE_ERRORS, translated
from provenance.stores.sql.figures import FiguresPart
from provenance.stores.sql.listing import ListingPart
from provenance.stores.sql.revisions import (
    bring_up_to_date,
    is_current,
    known_revision,
    require_current,
    stale,
)
from provenance.stores.sql.schema import REVISIONS
from provenance.stores.sql.sealing import SealingPart
from provenance.stores.sql.session import LEDGER_LOCK, SCHEMA_LOCK
from provenance.stores.sql.work import WorkPart

IDLE_S: Final = 120
"""A writer that says nothing for so long, as a process that was stopped, loses its transaction: the
server drops it, with the locks that all others wait for."""
_WAIT = (
    "SELECT set_config('lock_timeout', :wait, true), "
    f"set_config('idle_in_transaction_session_timeout', '{IDLE_S}s', true), "
)
_LOCK: Final = text(
    f"{_WAIT}pg_advisory_xact_lock_shared({SCHEMA_LOCK}), pg_advisory_xact_lock(:key)"
)
_LOCK_SCHEMA: Final = text(f"{_WAIT}pg_advisory_xact_lock({SCHEMA_LOCK})")

_SIZES: Final = {
    "sqlite": (
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
        ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"),
    ),
    "postgresql": (
        "SELECT pg_total_relation_size('records')",
        ("VACUUM (FULL, ANALYZE) records",),
    ),
}
"""How large the database is, and what gives back what is unused."""

_stores: weakref.WeakSet[SqlStore] = weakref.WeakSet()
_of_the_parent: list[object] = []
"""Held so that a forked child never closes a connection that its parent still uses."""


class SqlTx(ListingPart, SealingPart, WorkPart, FiguresPart):
    """One transaction or snapshot; see :class:`provenance.ports.store.LedgerTx`."""


class SqlStore:
    """A database by URL: ``sqlite:///path``, ``sqlite://`` or ``postgresql://...``.

    Args:
        url: As in ``database_url``.
        wait_s: How long a writer waits for its turn, or for a connection, before
            StoreUnavailable.
        read_only: Refuse transactions; an SQLite file is neither written nor joined by
            another one (``-wal``, ``-shm``), so its folder may be read-only too.
        archive: Folder of the files of archived runs; None where there is none.

    Raises:
        ConfigError: The URL, or the file it names, cannot be used.
        MissingExtraError: The driver is not installed.
        StoreUnavailable: The folder of the database cannot be made.
    """

    def __init__(
        self,
        url: str,
        *,
        wait_s: float = 30.0,
        read_only: bool = False,
        archive: Path | None = None,
    ) -> None:
        self._url = parse_url(url)
        self._archive = None if archive is None else Archive(archive)
        self._wait_s, self._read_only = wait_s, read_only
        self.label = url_label(self._url)
        self.in_memory = self._url.database in (None, "", ":memory:") and self._sqlite
        self._engine: Engine | None = make_engine(self._url, wait_s, read_only=read_only)
        self._mine = threading.local()
        self._one_connection = threading.Lock()
        _stores.add(self)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        migrate: bool = True,
        wait_s: float = 30.0,
        read_only: bool = False,
        archive: Path | None = None,
    ) -> SqlStore:
        """A store whose schema is the one this release needs.

        With ``migrate`` an older or empty database is brought up to date first; that is
        safe in several processes at once. With ``read_only`` it never is.

        Raises:
            ConfigError: The database is newer than this release, or (without ``migrate``)
                older, or it is no database of this project.
            StoreUnavailable: It cannot be reached.
        """
        store = cls(url, wait_s=wait_s, read_only=read_only, archive=archive)
        try:
            with store._begun(write=False) as connection, translated(store.label):
                current = is_current(connection, store.label)
            if not current and (read_only or not migrate):
                raise stale(store.label)
            if not current:
                with store.exclusive() as connection:
                    bring_up_to_date(connection, store.label)
        except BaseException:
            store.close()
            raise
        return store

    @property
    def _sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @contextmanager
    def transaction(self, run: UUID | None = None) -> Iterator[LedgerTx]:
        """A write transaction: of a run's rows, and of the ledger's at its end; or of those that
        are no run's, where None.

        Raises:
            StoreUnavailable: No connection, or no turn within ``wait_s``.
            ConfigError: Another release migrated the database meanwhile.
            UsageError: This thread already has one open.
        """
        with self._begun(write=True, run=run) as connection, self._committed(connection):
            tx = SqlTx(connection, self.label, writable=True, archive=self._archive)
            try:
                with translated(self.label, DATABASE_ERRORS):  # also of rows that are fetched late
                    yield tx
                if tx.failed is None:
                    tx.settle()
            finally:
                tx.end()
            if tx.failed is not None:
                raise tx.failed

    @contextmanager
    def snapshot(self) -> Iterator[LedgerTx]:
        """A read-only transaction that never waits for a writer (in memory it does). Raises
        StoreUnavailable: no connection; or, of an SQLite file that no writer had open
        (``read_only``), one wrote to it before the end: read again."""
        with self._begun(write=False) as connection:
            tx = SqlTx(connection, self.label, writable=False, archive=self._archive)
            try:
                with translated(self.label, DATABASE_ERRORS):
                    yield tx
            finally:
                tx.end()
            if not unchanged(connection):
                raise StoreUnavailable(f"{self.label} was written to while it was read")

    @contextmanager
    def exclusive(self) -> Iterator[Connection]:
        """A write transaction as a bare connection, beside no other: for migrations."""
        with (
            self._begun(write=True, alone=True) as connection,
            self._committed(connection),
            translated(self.label),
        ):
            yield connection

    def vacuum(self) -> int:
        """See :meth:`provenance.ports.store.LedgerStore.vacuum`."""
        size, steps = _SIZES["sqlite" if self._sqlite else "postgresql"]
        with self._begun(write=False) as connection, translated(self.label):
            connection.rollback()
            connection.execution_options(isolation_level="AUTOCOMMIT")
            before = connection.exec_driver_sql(size).scalar_one()
            for step in steps:
                connection.exec_driver_sql(step)
            return int(before - connection.exec_driver_sql(size).scalar_one())

    def close(self) -> None:
        """Close all idle connections. A later call opens new ones."""
        if self._engine is not None:
            with translated(self.label):
                self._engine.dispose()

    @contextmanager
    def _begun(
        self, write: bool, run: UUID | None = None, alone: bool = False
    ) -> Iterator[Connection]:
        if write and self._read_only:
            raise UsageError(f"{self.label} was opened read-only")
        with self._turn(write):
            if self._engine is None:
                raise StoreUnavailable(f"{self.label} is in another process: it was forked")
            process = os.getpid()
            with translated(self.label):
                connection = self._engine.connect()
            try:
                if write and not is_in_place(connection):
                    lost = "was deleted or replaced while it was in use: put it back, and restart"
                    raise StoreUnavailable(f"{self.label} {lost}")
                with translated(self.label):
                    self._begin(connection, write, run, alone)
                    if write and not alone:
                        require_current(connection, self.label)
                yield connection
            finally:
                if os.getpid() != process:
                    _of_the_parent.append(connection)
                else:
                    # A connection that cannot roll back is dropped from the pool by close().
                    with suppress(exc.SQLAlchemyError):
                        connection.close()

    def _begin(self, connection: Connection, write: bool, run: UUID | None, alone: bool) -> None:
        if self._sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
        elif write:
            values: dict[str, Any] = {"wait": str(int(self._wait_s * 1000))}
            if not alone:
                values["key"] = LEDGER_LOCK if run is None else _run_lock(run)
            connection.execute(_LOCK_SCHEMA if alone else _LOCK, values)
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")

    @contextmanager
    def _committed(self, connection: Connection) -> Iterator[None]:
        process = os.getpid()
        yield
        if os.getpid() != process:
            raise StoreUnavailable(f"{self.label}: the process was forked inside a transaction")
        with translated(self.label):
            connection.commit()

    @contextmanager
    def _turn(self, write: bool) -> Iterator[None]:
        """One writer per thread; in memory also one user of the connection at a time."""
        if getattr(self._mine, "open", False) and (write or self.in_memory):
            raise UsageError("this thread already has a transaction open")
        mine, lock = self._mine, self._one_connection
        nested = getattr(mine, "open", False)
        if self.in_memory and not lock.acquire(timeout=self._wait_s):
            raise StoreUnavailable(f"{self.label} is in use by another thread")
        mine.open = nested or write or self.in_memory
        try:
            yield
        finally:
            mine.open = nested
            if self.in_memory:
                lock.release()

    def _before_fork(self) -> None:
        if self._engine is not None and self._sqlite and not self.in_memory:
            with suppress(exc.SQLAlchemyError):
                self._engine.dispose()

    def _after_fork(self) -> None:
        _of_the_parent.append(self._engine)
        self._engine = (
            None
            if self.in_memory
            else make_engine(self._url, self._wait_s, read_only=self._read_only)
        )
        self._mine = threading.local()
        self._one_connection = threading.Lock()


def _run_lock(run: UUID) -> int:
    """Key of a run's advisory lock: of its whole id, whose end runs of one key share, and negative,
    so never the ledger's. Two runs that have the same take turns."""
    return -1 - (int.from_bytes(hashlib.sha256(run.bytes).digest()[:8], "big") >> 1)


def migrate(url: str, to: str = REVISIONS[-1], *, change: bool = True) -> str | None:
    """Bring the database at ``url`` to a schema revision, and close it; nothing is written where
    it is there already.

    Args:
        change: False only looks; what it has is not there to be made.

    Returns:
        The revision it was at; None where it was never migrated.

    Raises:
        ConfigError, MissingExtraError, StoreUnavailable: As :meth:`SqlStore.open`.
    """
    path = sqlite_path(url)
    revision = None
    if path is None or path.exists():
        store = SqlStore(url, read_only=True)
        with closing(store), store._begun(write=False) as connection, translated(store.label):
            revision = known_revision(connection, store.label)
    if change and revision != to:
        store = SqlStore(url)
        with closing(store), store.exclusive() as connection:
            bring_up_to_date(connection, store.label, to)
    return revision


def _before_fork() -> None:
    """SQLite in the child would take its parent's locks for its own, and hold none: nothing
    idle stays open (https://sqlite.org/howtocorrupt.html, 2.6)."""
    for store in list(_stores):
        store._before_fork()


def _after_fork() -> None:
    for store in list(_stores):
        store._after_fork()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
