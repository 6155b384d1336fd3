"""LedgerStore: transactions, snapshots, threads and forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import pytest

from provenance.errors import (
    EquivocationError,
    IntegrityError,
    StoreUnavailable,
    UsageError,
)
from provenance.formats.record import Phase
from provenance.ports.store import LedgerStore
from provenance.ports.values import AnchorState, Inserted
from provenance.stores.sql import SqlStore
from tests.support.ledger_values import (
    DUE,
    KEY,
    OTHER,
    RUN,
    record,
    signed,
    with_anchor,
    with_heads,
)
from tests.support.runs import run_of

# --- transactions ------------------------------------------------------------------------


def test_an_exception_takes_everything_back(store: LedgerStore) -> None:
    def write() -> None:
        with store.transaction() as tx:
            tx.add_run(RUN, KEY, 1.0)
            tx.insert_records([record(seq) for seq in range(100)], 1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    with store.snapshot() as seen:
        assert list(seen.runs()) == []
        assert list(seen.records(RUN)) == []


def test_a_database_error_that_was_caught_still_dooms_the_transaction(store: LedgerStore) -> None:
    def write() -> None:
        with store.transaction() as tx:
            tx.add_run(RUN, KEY, 1.0)
            with suppress(IntegrityError):
                tx.insert_records([record(0, run=OTHER)], 1.0)

    with pytest.raises(IntegrityError):
        write()
    with store.snapshot() as seen:
        assert list(seen.runs()) == []


def test_a_refusal_found_by_reading_does_not_doom_the_transaction(store: LedgerStore) -> None:
    with store.transaction() as tx:
        anchor = with_anchor(tx)
        tx.add_version(anchor.id, signed(), 1.0)
        with pytest.raises(EquivocationError):
            tx.add_version(anchor.id, signed(raw=b"other"), 1.0)
    with store.snapshot() as seen:
        assert len(seen.versions(anchor.id)) == 1


def test_a_snapshot_is_read_only(store: LedgerStore) -> None:
    with store.snapshot() as seen, pytest.raises(UsageError, match="read-only"):
        seen.add_run(RUN, KEY, 1.0)


@pytest.mark.parametrize("kind", ["transaction", "snapshot"])
def test_a_transaction_ends_with_its_block(store: LedgerStore, kind: str) -> None:
    with getattr(store, kind)() as tx:
        pass
    with pytest.raises(UsageError, match="after its end"):
        tx.runs()


def test_a_second_transaction_in_one_thread_is_refused(store: LedgerStore) -> None:
    with store.transaction(), pytest.raises(UsageError, match="already"), store.transaction():
        pytest.fail("it would wait for itself")
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)


def test_what_was_committed_is_there_after_closing(durable_url: str) -> None:
    for expected in ([], [RUN]):
        store = SqlStore.open(durable_url)
        with store.transaction() as tx:
            assert [row.run for row in tx.runs()] == expected
            tx.add_run(RUN, KEY, 1.0)
        store.close()


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def test_writers_in_many_threads_take_turns(store: LedgerStore) -> None:
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)

    def work(number: int) -> int:
        new = 0
        for seq in range(10):
            with store.transaction() as tx:
                tx.append_entry(RUN, Phase.CHECKPOINT, number * 10 + seq, KEY, False, 1.0)
                new += tx.insert_records([record(seq)], 1.0)[0] is Inserted.NEW
        return new

    assert sum(map(int, map(str, in_threads(6, work)))) == 10
    with store.snapshot() as seen:
        assert [entry.index for entry in seen.entries()] == list(range(60))


def test_on_postgresql_runs_wait_for_each_other_at_the_ledger_alone(postgres_url: str) -> None:
    """Of one key too, whose ids end alike; one run's transactions take turns."""
    store, impatient = SqlStore.open(postgres_url), SqlStore(postgres_url, wait_s=0.2)
    first, second = run_of(1), run_of(2)

    def append(at: int, run: UUID) -> None:
        with impatient.transaction(run) as tx:
            tx.add_run(run, KEY, 1.0)
            tx.insert_records([record(seq, run=run) for seq in range(at, at + 3)], 1.0)
            if at:
                tx.append_entry(run, Phase.CHECKPOINT, at, KEY, False, 1.0)

    with ThreadPoolExecutor(1) as pool:
        with store.transaction(first) as tx:
            tx.add_run(first, KEY, 1.0)
            tx.insert_records([record(0, run=first)], 1.0)
            pool.submit(append, 0, second).result(60)
            with pytest.raises(StoreUnavailable, match="lock timeout"):
                pool.submit(append, 3, first).result(60)
            tx.append_entry(first, Phase.BEFORE, None, KEY, False, 1.0)
            with pytest.raises(StoreUnavailable, match="lock timeout"):
                pool.submit(append, 3, second).result(60)
        pool.submit(append, 3, second).result(60)
    with store.snapshot() as seen:
        assert [(e.index, e.run) for e in seen.entries()] == [(0, first), (1, second)]
        assert len(seen.records(second)) == 6
    store.close()
    impatient.close()


def test_two_claims_never_share_a_row(store: LedgerStore) -> None:
    with store.transaction() as tx:
        with_heads(tx, 20)
        for size in range(1, 21):
            tx.add_anchor("ethereum", size, 1.0)

    def work(number: int) -> list[int]:
        mine: list[int] = []
        while True:
            with store.transaction() as tx:
                claimed = tx.claim("ethereum", DUE, f"w{number}", 1.0, 60.0, 3)
                for row in claimed:
                    tx.save_anchor(replace(row, state=AnchorState.SIGNED))
            if not claimed:
                return mine
            mine += [row.id for row in claimed]

    taken = [each for part in in_threads(4, work) for each in part]  # type: ignore[attr-defined]  # wrong or wider on purpose
    assert len(taken) == len(set(taken)) == 20


def test_a_snapshot_sees_one_state_and_waits_for_no_writer(durable_url: str) -> None:
    store = SqlStore.open(durable_url)
    written, release = threading.Event(), threading.Event()

    def write() -> None:
        with store.transaction() as tx:
            tx.add_run(RUN, KEY, 1.0)
            written.set()
            assert release.wait(60)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        assert written.wait(60)
        with store.snapshot() as seen:
            assert seen.run(RUN) is None
            release.set()
            writer.result(60)
            assert seen.run(RUN) is None
    with store.snapshot() as seen:
        assert seen.run(RUN) is not None

    store.close()


def test_a_snapshot_inside_a_transaction_sees_what_was_committed(
    store: LedgerStore, store_url: str
) -> None:
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
        if store_url == "sqlite://":
            with pytest.raises(UsageError), store.snapshot():
                pytest.fail("it would wait for itself")
        else:
            with store.snapshot() as seen:
                assert seen.run(RUN) is None


# --- fork --------------------------------------------------------------------------------


def forked(work: Callable[[], object]) -> None:
    """Run in a forked child; fail where it raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_parent_and_child_both_go_on_after_a_fork(durable_url: str) -> None:
    store = SqlStore.open(durable_url)
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)

    def in_child() -> None:
        for seq in range(5):
            with store.transaction() as tx:
                assert tx.insert_records([record(seq)], 1.0)[0] is Inserted.NEW
        store.close()

    for _ in range(2):
        with store.snapshot() as seen:
            held = len(seen.records(RUN))
    assert held == 0
    forked(in_child)
    with store.transaction() as tx:
        assert len(tx.records(RUN)) == 5
        tx.insert_records([record(5)], 1.0)
    with store.snapshot() as seen:
        assert [row.seq for row in seen.records(RUN)] == list(range(6))
    store.close()


def test_a_transaction_open_across_a_fork_belongs_to_the_parent(durable_url: str) -> None:
    store = SqlStore.open(durable_url)
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
        child = os.fork()
        if child == 0:
            os._exit(_read_in_child(store))
        assert os.waitpid(child, 0)[1] == 0
        tx.insert_records([record(0)], 1.0)
    with store.snapshot() as seen:
        assert [row.seq for row in seen.records(RUN)] == [0]
    store.close()


def test_a_forked_child_cannot_commit_for_its_parent(durable_url: str) -> None:
    store = SqlStore.open(durable_url)
    parent = os.getpid()
    child = -1
    try:
        with store.transaction() as tx:
            tx.add_run(RUN, KEY, 1.0)
            child = os.fork()
            if child != 0:
                assert os.waitpid(child, 0)[1] == 0
    except StoreUnavailable as error:
        os._exit(0 if os.getpid() != parent and "forked" in str(error) else 3)
    finally:
        if os.getpid() != parent:
            os._exit(4)
    with store.snapshot() as seen:
        assert seen.run(RUN) is not None
    store.close()


def _read_in_child(store: SqlStore) -> int:
    try:
        with store.snapshot() as seen:
            return 0 if seen.run(RUN) is None else 5
    except Exception:  # noqa: BLE001  whatever it is must not reach the caller
        return 6


def test_a_database_in_memory_stays_in_its_process() -> None:
    store = SqlStore.open("sqlite://")

    def in_child() -> None:
        with pytest.raises(StoreUnavailable, match="forked"), store.transaction():
            pass

    forked(in_child)
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
