"""The numbers over the whole database that are watched: one suite for each kind of database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provenance.formats.record import Phase
from provenance.formats.run_tree.selection import SealMark
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorState, HeadRow, Parked, ProducerRow
from tests.support.ledger_values import OTHER, RUN, digest

FINAL = (AnchorState.FINAL,)
A, B = b"\x01" * 16, b"\x02" * 16


def test_an_empty_database_has_none(tx: LedgerTx) -> None:
    assert tx.open_and_sealed() == {}
    assert tx.dropped() == (0, 0)
    assert tx.parked_count() == 0
    assert tx.fees() == {}
    assert tx.newest_seals(10) == []
    assert tx.unanchored_since("local", FINAL) is None
    assert tx.oldest_anchors("local") == {}
    assert tx.commit_time("sweep") is None


def test_runs_and_what_they_lost(run_tx: LedgerTx) -> None:
    run_tx.seal_run(RUN, 5.0, None)
    for producer, dropped in ((A, 3), (B, 0)):
        row = ProducerRow(RUN, producer, 0, b"certificate", 0, digest("0"), 0)
        run_tx.save_producer(replace(row, dropped=dropped))
    run_tx.save_producer(replace(row, run=OTHER, dropped=2**53 - 1))
    run_tx.park(Parked("0" * 64, RUN, "why", b"x", 1.0))
    assert run_tx.open_and_sealed() == {"open": 1, "sealed": 1}
    producers, events = run_tx.dropped()
    assert producers == 2
    assert events == pytest.approx(2**53 + 2)
    assert run_tx.parked_count() == 1


def test_the_last_commit_of_a_writer_stands(tx: LedgerTx) -> None:
    tx.note_commit("sweep", 1.0)
    tx.note_commit("doctor", 2.0)
    tx.note_commit("sweep", 3.5)
    assert (tx.commit_time("sweep"), tx.commit_time("doctor")) == (3.5, 2.0)


def test_anchors_their_fees_and_what_waits_for_them(run_tx: LedgerTx) -> None:
    mark = SealMark(Phase.BEFORE, None, 0, A, 0, True, ("2026-01-01T00:00:00Z", A.hex(), 0))
    run_tx.add_marks(RUN, [mark])
    for index, (phase, anchor) in enumerate(((Phase.BEFORE, True), (Phase.AFTER, False)), 1):
        root = digest(str(index))
        run_tx.append_entry(RUN, phase, None, root, anchor, 10.0 * index)
        run_tx.add_head(HeadRow(index, root, "note", b"", 10.0 * index))
    run_tx.append_entry(OTHER, Phase.BEFORE, None, digest("3"), True, 30.0)
    run_tx.add_head(HeadRow(3, digest("3"), "note", b"", 30.0))
    first, third = (run_tx.add_anchor("ethereum", size, 40.0) for size in (1, 3))
    assert run_tx.newest_seals(2) == [], "the newest two nobody asked for"
    assert run_tx.newest_seals(3) == [(10.0, "2026-01-01T00:00:00Z")]
    assert run_tx.unanchored_since("ethereum", FINAL) == 10.0
    run_tx.save_anchor(replace(first, state=AnchorState.FINAL, paid=1.5e19))
    assert run_tx.unanchored_since("ethereum", FINAL) == 30.0, "the second is not to be anchored"
    states = {AnchorState.CONFIRMED: (50.0, 2, 7)}
    moved = replace(third, state=AnchorState.CONFIRMED, updated_at=50.0, attempts=2, depth=7)
    run_tx.save_anchor(replace(moved, paid=1.5e19))
    assert run_tx.oldest_anchors("ethereum") == states
    assert run_tx.oldest_anchors("local") == {}
    assert run_tx.fees() == {"ethereum": 3e19}
    assert run_tx.unanchored_since("ethereum", (*FINAL, AnchorState.CONFIRMED)) is None
