"""The numbers over the whole database that are watched: one suite for each kind of database."""

from __future__ import annotations

from dataclasses import replace

from provenance.formats.record import Phase
from provenance.formats.run_tree.selection import SealMark
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorState, HeadRow
from tests.support.ledger_values import RUN, digest

A = b"\x01" * 16


def test_an_empty_database_has_none(tx: LedgerTx) -> None:
    assert tx.open_and_sealed() == {}
    assert tx.dropped() == (0, 0)
    assert tx.parked_count() == 0
    assert tx.newest_seals(10) == []
    assert tx.oldest_anchors("local") == {}
    assert tx.commit_time("sweep") is None


def test_runs_by_state(run_tx: LedgerTx) -> None:
    run_tx.seal_run(RUN, 5.0, None)
    assert run_tx.open_and_sealed() == {"open": 1, "sealed": 1}


def test_a_failed_anchor_is_a_problem_until_a_later_head_covers_it(run_tx: LedgerTx) -> None:
    for size in (1, 2):
        run_tx.append_entry(RUN, Phase.CHECKPOINT, size, digest(str(size)), True, 10.0)
        run_tx.add_head(HeadRow(size, digest(str(size)), "note", b"", 10.0))
    failed = run_tx.add_anchor("ethereum", 1, 40.0)
    run_tx.save_anchor(replace(failed, state=AnchorState.FAILED, reason="given up"))
    assert run_tx.tally("ethereum").problem == "given up"
    later = run_tx.add_anchor("ethereum", 2, 41.0)
    assert run_tx.tally("ethereum").problem is None
    run_tx.save_anchor(replace(later, state=AnchorState.SENT, reason="no answer"))
    assert run_tx.tally("ethereum").problem == "no answer"


def test_the_last_commit_of_a_writer_stands(tx: LedgerTx) -> None:
    tx.note_commit("sweep", 1.0)
    tx.note_commit("doctor", 2.0)
    tx.note_commit("sweep", 3.5)
    assert (tx.commit_time("sweep"), tx.commit_time("doctor")) == (3.5, 2.0)


def test_delays_of_seals_and_anchors_under_way(run_tx: LedgerTx) -> None:
    mark = SealMark(Phase.BEFORE, None, 0, A, 0, True, ("2026-01-01T00:00:00Z", A.hex(), 0))
    run_tx.add_marks(RUN, [mark])
    for index, (phase, anchor) in enumerate(((Phase.BEFORE, True), (Phase.AFTER, False)), 1):
        root = digest(str(index))
        run_tx.append_entry(RUN, phase, None, root, anchor, 10.0 * index)
        run_tx.add_head(HeadRow(index, root, "note", b"", 10.0 * index))
    assert run_tx.newest_seals(1) == [], "the newest nobody asked for"
    assert run_tx.newest_seals(2) == [(10.0, "2026-01-01T00:00:00Z")]
    first, second = (run_tx.add_anchor("ethereum", size, 40.0) for size in (1, 2))
    run_tx.save_anchor(replace(first, state=AnchorState.FINAL, attempts=9))
    moved = replace(second, state=AnchorState.CONFIRMED, updated_at=50.0, attempts=2, depth=7)
    run_tx.save_anchor(moved)
    assert run_tx.oldest_anchors("ethereum") == {AnchorState.CONFIRMED: (50.0, 2, 7)}
    assert run_tx.oldest_anchors("local") == {}
