"""SqlStore on SQLite: pragmas, error translation, locks, and kill -9.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, exc, text

from provenance.errors import (
    ConfigError,
    InputError,
    IntegrityError,
    MissingExtraError,
    ProvenanceError,
    StoreUnavailable,
    UsageError,
)
from provenance.stores.sql import SqlStore, migrate, schema
from provenance.stores.sql import engine as sql_engine
from provenance.stores.sql import store as sql
from provenance.stores.sql.errors import translate
from tests.support.frameworks import installed
from tests.support.ledger_values import KEY, RUN, record
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "folder" / "ledger.db"


def test_sqlite_is_durable_and_checks_references(path: Path) -> None:
    store = SqlStore.open(f"sqlite:///{path}", wait_s=7.0)
    for _ in range(2):  # the second time on a pooled connection
        with store.exclusive() as connection:
            found = {
                name: connection.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert found == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 7000,
        }
    store.close()


def test_the_files_are_their_owners_alone(path: Path) -> None:
    store = SqlStore.open(f"sqlite:///{path}")
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}
    store.close()


def test_a_writer_that_waited_too_long_is_told_so(path: Path) -> None:
    store = SqlStore.open(f"sqlite:///{path}", wait_s=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another process"), store.transaction():
        pytest.fail("the other one has the lock")
    with store.snapshot() as seen:
        assert list(seen.runs()) == []
    other.execute("ROLLBACK")
    other.close()
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
    store.close()


def test_in_memory_a_thread_that_waited_too_long_is_told_so() -> None:
    store = SqlStore.open("sqlite://", wait_s=0.05)
    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction():
            entered.set()
            assert release.wait(60)

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        assert entered.wait(60)
        with pytest.raises(StoreUnavailable, match="another thread"), store.snapshot():
            pytest.fail("the other one has the connection")
        release.set()
        holder.result(60)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 100)
    with pytest.raises(ConfigError, match=r"notes\.txt is not a database") as caught:
        SqlStore.open(f"sqlite:///{path}")
    assert caught.value.key == "database_url"
    assert path.read_text().startswith("not a database")


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("prepare_threshold=often", "prepare_threshold: expected a whole number, or None"),
        ("autocommit=1", "found the option 'autocommit'"),
        ("pool_size=5", 'database d at 127.0.0.1:1: invalid connection option "pool_size"'),
    ],
)
def test_an_option_that_postgresql_does_not_take_is_named(option: str, problem: str) -> None:
    installed("psycopg", "postgres")
    with pytest.raises(ConfigError, match=f"^database_url: {problem}"):
        SqlStore.open(f"postgresql://u:pw@127.0.0.1:1/d?{option}")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "ledger.db", tmp_path):
        with pytest.raises(ConfigError, match="cannot be opened"):
            SqlStore(f"sqlite:///{place}")


def test_a_full_disk_is_not_the_configurations_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("provenance.stores.sql.engine.os.open", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        SqlStore(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_a_database_without_our_tables_says_so(path: Path) -> None:
    store = SqlStore(f"sqlite:///{path}")
    with pytest.raises(ConfigError, match="not migrated"), store.snapshot() as seen:
        seen.runs()
    store.close()


def test_a_file_system_without_wal_is_refused(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(sql_engine, "_journal_mode", lambda connection, change: "delete")
    with pytest.raises(ConfigError, match="cannot use WAL"):
        SqlStore.open(f"sqlite:///{path}")


@pytest.mark.parametrize(("busy", "patient"), [(True, True), (True, False), (False, True)])
def test_the_switch_to_wal_waits_for_others(
    monkeypatch: pytest.MonkeyPatch, path: Path, busy: bool, patient: bool
) -> None:
    tries = []

    def once_busy(connection: sqlite3.Connection, change: str) -> str:
        tries.append(change)
        if len(tries) == 1:
            error = sqlite3.OperationalError("database is locked" if busy else "disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY if busy else sqlite3.SQLITE_IOERR
            raise error
        return "wal"

    monkeypatch.setattr(sql_engine, "_journal_mode", once_busy)
    store = SqlStore(f"sqlite:///{path}", wait_s=60.0 if patient else -1.0)
    if busy and patient:
        with store.snapshot():
            assert len(tries) == 2
    else:
        with pytest.raises(StoreUnavailable, match="locked" if busy else "I/O"), store.snapshot():
            pytest.fail("no connection")
    store.close()


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


@pytest.fixture
def sealed_folder() -> Iterator[Path]:
    """A database in a folder that this process may read and not write, even as root."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # nobody may enter pytest's own
    store = SqlStore.open(f"sqlite:///{folder}/100% #.db")
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
    store.close()
    (folder / "100% #.db").chmod(0o444)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def test_a_reader_needs_no_right_to_write(sealed_folder: Path) -> None:
    url = f"sqlite:///{sealed_folder}/100% #.db"
    with pytest.raises((ConfigError, StoreUnavailable), match="cannot be opened|readonly"):
        SqlStore.open(url)
    store = SqlStore.open(url, read_only=True)
    for _ in range(2):
        with store.snapshot() as seen:
            assert seen.run(RUN) is not None
    store.close()
    assert names(sealed_folder) == {"100% #.db"}


def test_a_reader_leaves_nothing_behind(path: Path) -> None:
    visit(path)
    before = path.read_bytes()
    store = SqlStore.open(f"sqlite:///{path}", read_only=True)
    with store.snapshot() as seen:
        assert seen.run(RUN) is not None
        assert names(path.parent) == {"ledger.db"}
    with pytest.raises(UsageError, match="opened read-only"), store.transaction():
        pytest.fail("a reader writes")
    with store._begun(write=False) as connection, pytest.raises(exc.OperationalError):
        connection.execute(text("DELETE FROM runs"))
    store.close()
    assert names(path.parent) == {"ledger.db"}
    assert path.read_bytes() == before


def test_a_reader_sees_what_a_writer_has_in_its_log(path: Path) -> None:
    writer = SqlStore.open(f"sqlite:///{path}")
    reader = SqlStore.open(f"sqlite:///{path}", read_only=True)
    with writer.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
    with reader.snapshot() as seen:
        assert seen.run(RUN) is not None
        with writer.transaction() as tx:
            tx.add_run(UUID(int=1), KEY, 2.0)
        assert len(seen.runs()) == 1
    reader.close()
    writer.close()
    assert names(path.parent) == {"ledger.db"}


def test_a_reader_without_a_log_says_that_a_writer_came(path: Path) -> None:
    visit(path)
    reader = SqlStore.open(f"sqlite:///{path}", read_only=True)

    def read() -> None:
        with reader.snapshot() as seen:
            assert len(seen.runs()) == 1
            writer = SqlStore.open(f"sqlite:///{path}")
            with writer.transaction() as tx:
                tx.add_run(UUID(int=1), KEY, 2.0)
            writer.close()  # the last one to leave writes the log into the file

    with pytest.raises(StoreUnavailable, match="written to while it was read"):
        read()
    with reader.snapshot() as seen:
        assert len(seen.runs()) == 2
    reader.close()


def test_a_reader_makes_no_database_and_migrates_none(path: Path) -> None:
    with pytest.raises(ConfigError, match="not a file that can be read"):
        SqlStore.open(f"sqlite:///{path}", read_only=True)
    assert not path.parent.exists()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="migrate it first"):
        SqlStore.open(f"sqlite:///{path}", read_only=True)
    assert path.read_bytes() == b""


def test_a_postgres_reader_migrates_nothing_and_reads(postgres_url: str) -> None:
    with pytest.raises(ConfigError, match="migrate it first"):
        SqlStore.open(postgres_url, read_only=True)
    migrate(postgres_url)
    store = SqlStore.open(postgres_url, read_only=True)
    with store.snapshot() as seen:
        assert list(seen.runs()) == []
    with pytest.raises(UsageError), store.transaction():
        pytest.fail("a reader writes")
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger.db",
        "mysql://u:hunter2@host/db",
        "postgresql+psycopg2://u:hunter2@host/db",
        "postgresql://u:hunter2@host:port/db",
        "sqlite://host/ledger.db",
        "sqlite:///file:ledger.db?mode=ro&uri=true",
        "sqlite:///file:ledger.db",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="expected sqlite:///<path> or postgresql://") as caught:
        SqlStore(url)
    assert caught.value.key == "database_url"
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_an_unreachable_server_is_named_without_its_password(scheme: str) -> None:
    store = SqlStore(f"{scheme}://u:hunter2@127.0.0.1:1/ledger?connect_timeout=1")
    with pytest.raises(StoreUnavailable, match=r"ledger at 127\.0\.0\.1:1") as caught:
        store.transaction().__enter__()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(store)


def test_a_refused_password_is_not_shown(postgres_url: str) -> None:
    wrong = postgres_url.replace(postgres_url.split(":")[2].split("@")[0], "hunter2")
    with pytest.raises(StoreUnavailable, match="password authentication failed") as caught:
        SqlStore.open(wrong)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_drops_us_is_unavailable_and_then_back(postgres_url: str) -> None:
    store = SqlStore.open(postgres_url)
    killer = SqlStore(postgres_url)

    def write() -> None:
        with store.transaction() as tx:
            tx.add_run(RUN, KEY, 1.0)
            with killer._begun(write=False) as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
            tx.runs()

    with pytest.raises(StoreUnavailable):
        write()
    with store.transaction() as tx:
        assert list(tx.runs()) == []
    store.close()
    killer.close()


def test_a_writer_that_is_stopped_loses_its_turn_and_not_its_senses(postgres_url: str) -> None:
    store = SqlStore.open(postgres_url)
    ends = "idle_in_transaction_session_timeout"
    with store.exclusive() as connection:
        assert connection.execute(text(f"SHOW {ends}")).scalar() == f"{sql.IDLE_S // 60}min"
    with (
        pytest.raises(StoreUnavailable, match="idle-in-transaction timeout"),
        store.exclusive() as connection,
    ):
        connection.execute(text(f"SET LOCAL {ends} = 50"))
        time.sleep(0.3)
        connection.execute(text("SELECT 1"))
    with store.transaction() as tx:
        tx.note_commit("one", 1.0)
    store.close()


def test_postgres_waits_for_its_turn_only_so_long(postgres_url: str) -> None:
    first = SqlStore.open(postgres_url)
    second = SqlStore(postgres_url, wait_s=0.05)
    with first.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
        with pytest.raises(StoreUnavailable, match="lock timeout"), second.transaction():
            pytest.fail("the first one has the lock")
        with second.snapshot() as seen:
            assert seen.run(RUN) is None
    first.close()
    second.close()


def test_no_connection_in_time_is_unavailable(path: Path) -> None:
    store = SqlStore.open(f"sqlite:///{path}", wait_s=0.01)

    def take_all() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(store.snapshot())

    with pytest.raises(StoreUnavailable, match="no free connection"):
        take_all()
    store.close()


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"ml-provenance\[postgres\]"):
        SqlStore("postgresql://u@host/db")


def _all_errors(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(deeper for each in base.__subclasses__() for deeper in _all_errors(each))]


@pytest.mark.parametrize("kind", sorted(_all_errors(exc.SQLAlchemyError), key=repr))
def test_every_error_of_sqlalchemy_is_translated(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "something odd\nwith a second line")
    if isinstance(error, exc.StatementError):
        error.orig, error.statement, error.code = ValueError("something odd\nand more"), None, None
    found = translate(error, "database x")
    assert isinstance(found, ProvenanceError)
    assert "second line" not in str(found)


class PostgresError(Exception):
    """As psycopg's: with its code."""

    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exc.IntegrityError("", None, sqlite3.IntegrityError("UNIQUE")), IntegrityError),
        (exc.OperationalError("", None, sqlite3.OperationalError("disk full")), StoreUnavailable),
        (exc.DataError("", None, sqlite3.DataError("too big")), InputError),
        (exc.StatementError("", "", None, TypeError("not JSON")), InputError),
        (exc.TimeoutError(), StoreUnavailable),
        (OverflowError("too large"), InputError),
        (sqlite3.OperationalError(), StoreUnavailable),
        (exc.OperationalError("", None, PostgresError("53100")), StoreUnavailable),  # disk full
        (exc.OperationalError("", None, PostgresError("54000")), InputError),  # program limit
    ],
)
def test_the_kind_of_an_error_decides(error: Exception, expected: type[Exception]) -> None:
    assert type(translate(error, "database x")) is expected


def test_a_store_that_nobody_holds_is_forgotten(path: Path) -> None:
    store = SqlStore.open(f"sqlite:///{path}")
    store.close()
    held = len(sql._stores)
    del store
    gc.collect()
    assert len(sql._stores) < held


_WRITER = """
import sys
from uuid import UUID
from provenance.stores.sql import SqlStore
from tests.support.ledger_values import KEY, RUN, record

store = SqlStore.open(sys.argv[1])
per, last = int(sys.argv[2]), int(sys.argv[3])
with store.transaction() as tx:
    start = len(tx.records(RUN)) if tx.run(RUN) else 0
for number in range(last):
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
        tx.insert_records([record(start + number * per + i) for i in range(per)], 1.0)
        if number == last - 1:
            print("inside", flush=True)
            sys.stdin.read()
    print("committed", start + (number + 1) * per, flush=True)
"""


def _writer(url: str, per: int, last: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, url, str(per), str(last)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.slow
def test_kill_9_inside_a_transaction_leaves_nothing_of_it(durable_sql_url: str) -> None:
    with _writer(durable_sql_url, 200, 3) as child:
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for _ in range(3)]
        assert said == ["committed 200", "committed 400", "inside"]
        child.send_signal(signal.SIGKILL)
    store = SqlStore.open(durable_sql_url)
    with store.transaction() as tx:
        assert [row.seq for row in tx.records(RUN)] == list(range(400))
    store.close()


@pytest.mark.slow
def test_kill_9_at_any_moment_keeps_what_was_committed(path: Path) -> None:
    url = f"sqlite:///{path}"
    chance = random.Random(7)
    migrate(url)
    for _ in range(6):
        with _writer(url, 50, 10_000) as child:
            assert child.stdout is not None
            committed = int(child.stdout.readline().split()[1])
            time.sleep(chance.random() * 0.2)
            child.send_signal(signal.SIGKILL)
            committed = max(
                [committed, *(int(n.split()[1]) for n in child.stdout if n[-1] == "\n")]
            )
        store = SqlStore.open(url)
        with store.transaction() as tx:
            rows = tx.records(RUN)
            assert [row.seq for row in rows] == list(range(len(rows)))
            assert rows == [record(seq) for seq in range(len(rows))]
            assert len(rows) >= committed
            assert len(rows) % 50 == 0
        with store.exclusive() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def durable_sql_url(request: pytest.FixtureRequest, path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    found: str = request.getfixturevalue("postgres_url")
    return found


VISITOR = """
import sys
from provenance.stores.sql import SqlStore
from tests.support.ledger_values import KEY, RUN
store = SqlStore.open(sys.argv[1])
with store.transaction() as tx:
    tx.add_run(RUN, KEY, 1.0)
store.close()
"""


def visit(path: Path) -> None:
    """Another process writes and leaves; the last one to leave takes the log away."""
    subprocess.run([sys.executable, "-c", VISITOR, f"sqlite:///{path}"], check=True)


def test_a_second_store_in_a_process_leaves_the_locks_of_the_first(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    first = SqlStore.open(f"sqlite:///{path}")
    second = SqlStore.open(f"sqlite:///{path}")
    second.close()
    visit(path)
    assert log.exists(), "the first store's log was deleted under it"
    with first.transaction() as tx:
        tx.add_run(UUID(int=1), KEY, 2.0)
    first.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (2,)


def test_a_child_holds_locks_of_its_own(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    store = SqlStore.open(f"sqlite:///{path}")
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException), store.snapshot() as tx:
            assert tx.run(RUN)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            status = 0
        os._exit(status)
    os.read(ready[0], 1)
    store.close()  # would be the last one, but for the child
    kept = log.exists()
    os.write(go[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert kept, "the child's log was deleted under it"


def test_what_the_parent_had_open_is_set_aside_in_the_child(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook itself, without a fork: forks are in the contract tests."""
    store = SqlStore.open(f"sqlite:///{path}")
    memory = SqlStore.open("sqlite://")
    # Not the stores of other tests in this process.
    monkeypatch.setattr(sql, "_stores", [store, memory])
    before, kept = store._engine, len(sql._of_the_parent)
    try:
        sql._after_fork()
        assert store._engine is not before
        assert any(each is before for each in sql._of_the_parent[kept:])
        with store.transaction() as tx:
            tx.add_run(RUN, KEY, 1.0)
        with pytest.raises(StoreUnavailable, match="forked"), memory.snapshot():
            pytest.fail("it lives in the parent")
        memory.close()
    finally:
        del sql._of_the_parent[kept:]
        store.close()


def test_a_block_that_crossed_a_fork_neither_commits_nor_closes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As seen from the child; the real fork is in the contract tests."""
    store = SqlStore.open(f"sqlite:///{path}")
    kept, process = len(sql._of_the_parent), os.getpid()

    def write() -> None:
        with store.transaction() as tx:
            tx.add_run(RUN, KEY, 1.0)
            monkeypatch.setattr("provenance.stores.sql.store.os.getpid", lambda: process + 1)

    with pytest.raises(StoreUnavailable, match="forked inside"):
        write()
    monkeypatch.undo()
    assert len(sql._of_the_parent) == kept + 1
    crossed = sql._of_the_parent.pop()
    assert isinstance(crossed, Connection)
    assert not crossed.closed
    with store.snapshot() as seen:
        assert seen.run(RUN) is None
    crossed.close()
    store.close()


def test_a_file_that_was_deleted_under_its_writer_takes_no_more(tmp_path: Path) -> None:
    """Else what is committed, and acknowledged, is in no file once the writer ends."""
    path = tmp_path / "ledger.db"
    store = SqlStore.open(f"sqlite:///{path}", migrate=True)
    with store.transaction():
        pass
    moved = path.rename(tmp_path / "moved.db")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="deleted or replaced"), store.transaction():
            pass
    moved.rename(path)
    with store.transaction():
        pass
    store.close()


def test_weights_are_looked_up_by_an_index_alone(path: Path) -> None:
    """Among 10,000 runs: no table is walked, nothing is sorted."""
    store = SqlStore.open(f"sqlite:///{path}")
    wanted = bytes(32)
    with store.exclusive() as connection:
        runs = [UUID(int=number) for number in range(10_000)]
        row = {"public_key": KEY, "state": "open", "created_at": 1.0}
        connection.execute(schema.runs.insert(), [{"run": run, **row} for run in runs])
        rows = [{"run": run, "epoch": 1, "root": run.bytes * 2} for run in runs]
        connection.execute(schema.epoch_weights.insert(), rows)
    asked = list[str]()

    def note(*own: Any) -> None:
        asked.append(own[2])

    event.listen(Engine, "before_cursor_execute", note)
    with store.snapshot() as tx:
        found = tx.runs_of_weights(wanted, 9)
    event.remove(Engine, "before_cursor_execute", note)
    with store.exclusive() as connection:
        statement = next(each for each in asked if "epoch_weights" in each)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (wanted, 9, 0))
        steps = [each.detail for each in plan]
    store.close()
    assert found == [(UUID(int=0), 1)]
    index = "USING COVERING INDEX ix_epoch_weights_root_run_epoch (root=?)"
    assert steps == [f"SEARCH epoch_weights {index}"]
