"""LedgerStore: runs, records, what producers sign, entries, heads and receipts.

Over 400 lines: one suite for one interface.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from provenance.errors import (
    EquivocationError,
    InputError,
    IntegrityError,
    UnknownRunError,
    UsageError,
)
from provenance.formats.note import encode_base64
from provenance.formats.record import Kind, Phase
from provenance.formats.run_tree.selection import SealMark
from provenance.ledger.ingest import ingest
from provenance.ports.listing import HeldRun, TeamUse
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import (
    Equivocation,
    HeadRow,
    Inserted,
    Parked,
    ProducerRow,
    ReceiptRow,
    StatementRow,
    StoredRecord,
    TreeRow,
)
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from provenance.stores.sql import records as records_part
from provenance.stores.sql.schema import ledger_entries
from tests.support.ledger_values import (
    KEY,
    OTHER,
    RUN,
    A,
    B,
    digest,
    record,
    with_anchor,
    with_heads,
)
from tests.support.runs import POLICY, Producer, run_of

# --- runs --------------------------------------------------------------------------------


def test_the_first_public_key_of_a_run_stands(tx: LedgerTx) -> None:
    first = tx.add_run(RUN, KEY, 1.0)
    assert (first.run, first.public_key, first.state, first.created_at) == (RUN, KEY, "open", 1.0)
    assert (first.sealed_at, first.incomplete) == (None, None)
    assert tx.add_run(RUN, bytes(32), 2.0) == first == tx.run(RUN)


def test_an_unknown_run_is_none(tx: LedgerTx) -> None:
    assert tx.run(RUN) is None


def test_runs_come_in_the_order_of_their_creation(tx: LedgerTx) -> None:
    tx.add_run(OTHER, KEY, 1.0)
    tx.add_run(RUN, KEY, 2.0)
    assert [row.run for row in tx.runs()] == [OTHER, RUN]


def test_the_first_seal_stands(run_tx: LedgerTx) -> None:
    run_tx.seal_run(RUN, 5.0, "3 events missing")
    run_tx.seal_run(RUN, 6.0, None)
    row = run_tx.run(RUN)
    assert row is not None
    assert (row.state, row.sealed_at, row.incomplete) == ("sealed", 5.0, "3 events missing")
    other = run_tx.run(OTHER)
    assert other is not None
    assert other.state == "open"


def test_sealing_an_unknown_run_names_it(tx: LedgerTx) -> None:
    with pytest.raises(UnknownRunError, match=str(RUN)):
        tx.seal_run(RUN, 1.0, None)


# --- records -----------------------------------------------------------------------------


def test_the_first_record_of_a_key_stands(run_tx: LedgerTx) -> None:
    first = record(0, epoch=None)
    assert run_tx.insert_records([first], 1.0)[0] is Inserted.NEW
    assert run_tx.insert_records([first], 2.0)[0] is Inserted.DUPLICATE
    assert run_tx.insert_records([record(0, text="another")], 3.0)[0] is Inserted.CONFLICT
    assert run_tx.records(RUN) == [first]


def test_bulk_answers_in_order_even_within_one_batch(run_tx: LedgerTx) -> None:
    run_tx.insert_records([record(1)], 1.0)
    batch = [
        record(2),
        record(1),
        record(2, text="another"),
        record(1, text="another"),
        record(2),
        record(1, producer=B),
        record(1, run=OTHER),
        record(2**53 - 1),
    ]
    assert list(run_tx.insert_records(batch, 1.0)) == [
        Inserted.NEW,
        Inserted.DUPLICATE,
        Inserted.CONFLICT,
        Inserted.CONFLICT,
        Inserted.DUPLICATE,
        Inserted.NEW,
        Inserted.NEW,
        Inserted.NEW,
    ]
    assert run_tx.records(RUN) == [record(1), record(2), record(2**53 - 1), record(1, producer=B)]
    assert run_tx.records(OTHER) == [record(1, run=OTHER)]


def test_runs_are_found_by_the_weights_of_an_epoch(run_tx: LedgerTx) -> None:
    """The last epoch of each run, the oldest run first; of what stands for a key alone."""
    ours, theirs = "0a" * 32, "0b" * 32

    def state(seq: int, epoch: int, root: str, run: UUID = RUN) -> StoredRecord:
        text = f'{{"body":{{"root":"mth-sha256:{root}"}}}}'
        return record(seq, run=run, kind=Kind.STATE, epoch=epoch, text=text)

    rows = [state(0, 3, ours, OTHER), state(0, 1, ours), state(1, 7, ours), state(2, 9, theirs)]
    run_tx.insert_records([*rows, state(3, 7, ours), record(4, kind=Kind.STATE)], 1.0)
    assert run_tx.insert_records([state(2, 9, ours)], 1.0) == [Inserted.CONFLICT]
    assert run_tx.runs_of_weights(bytes.fromhex(ours), 5) == [(RUN, 7), (OTHER, 3)]
    assert run_tx.runs_of_weights(bytes.fromhex(ours), 1) == [(RUN, 7)]
    assert run_tx.runs_of_weights(bytes.fromhex(theirs), 5) == [(RUN, 9)]
    assert run_tx.runs_of_weights(bytes(32), 5) == []


def test_an_empty_batch_is_nothing(run_tx: LedgerTx) -> None:
    assert list(run_tx.insert_records([], 1.0)) == []


def test_records_by_kind_keep_the_order(run_tx: LedgerTx) -> None:
    rows = [
        record(0, producer=B, kind=Kind.STATE),
        record(5, kind=Kind.STATE),
        record(1, kind=Kind.METRICS),
        record(2, kind=Kind.PRIVACY),
        record(3, kind=Kind.STATE),
    ]
    run_tx.insert_records(rows, 1.0)
    wanted = run_tx.records(RUN, iter([Kind.STATE, Kind.PRIVACY]))
    assert [(row.producer, row.seq) for row in wanted] == [(A, 2), (A, 3), (A, 5), (B, 0)]
    assert list(run_tx.records(RUN, [])) == []


def test_last_ingest_is_the_newest_time(run_tx: LedgerTx) -> None:
    assert run_tx.last_ingest(RUN) is None
    assert run_tx.last_ingest(UUID(int=9)) is None
    run_tx.insert_records([record(0)], 10.0)
    run_tx.insert_records([record(1)], 8.0)  # another host's clock is behind
    run_tx.insert_records([record(0)], 99.0)  # a duplicate is no news
    assert run_tx.last_ingest(RUN) == 10.0
    assert run_tx.last_ingest(OTHER) is None


def test_digests_come_in_order_from_a_sequence_number_on(run_tx: LedgerTx) -> None:
    rows = [record(seq) for seq in (3, 0, 7, 1)]
    run_tx.insert_records([*rows, record(2, producer=B), record(2, run=OTHER)], 1.0)
    assert [seq for seq, *_ in run_tx.digests_from(RUN, A, 0)] == [0, 1, 3, 7]
    run_tx.set_chains(RUN, A, [(7, digest("7"))])
    assert list(run_tx.digests_from(RUN, A, 3)) == [
        (3, record(3).digest, None),
        (7, record(7).digest, digest("7")),
    ]
    assert list(run_tx.digests_from(RUN, A, 8)) == []
    assert run_tx.chain_at(RUN, A, 8) == digest("7")
    assert run_tx.chain_at(RUN, A, 4) is run_tx.chain_at(RUN, B, 8) is None
    assert run_tx.has_record(RUN, A, 7)
    assert not run_tx.has_record(RUN, B, 7)


def test_leaves_come_by_epoch_within_what_is_asked_for(run_tx: LedgerTx) -> None:
    rows = [record(seq, epoch=epoch) for seq, epoch in enumerate((4, 2, 3, 2))]
    rows += [record(4, kind=Kind.RESULTS, epoch=None), record(5, kind=Kind.SEAL, epoch=2)]
    rows += [record(0, producer=B, epoch=3, kind=Kind.STATE)]
    run_tx.insert_records(rows, 1.0)

    def leaves(*kinds: Kind, **asked: Any) -> list[tuple[int | None, str, int]]:
        found = run_tx.leaves(RUN, kinds, **asked)
        return [(leaf.epoch, leaf.order[1][:2], leaf.order[2]) for leaf in found]

    both = (Kind.METRICS, Kind.STATE)
    assert [epoch for epoch, *_ in leaves(*both, above=-1)] == [2, 2, 3, 3, 4]
    assert sorted(leaves(*both, above=2, upto=3)) == [(3, "61", 2), (3, "62", 0)]
    assert leaves(*both, above=2, upto=3, producer=B) == [(3, "62", 0)]
    assert sorted(leaves(*both, producer=A, below_seq=2)) == [(2, "61", 1), (4, "61", 0)]
    assert leaves(Kind.RESULTS) == [(None, "61", 4)]
    (leaf,) = run_tx.leaves(RUN, (Kind.STATE,))
    assert leaf.digest == record(0, producer=B).digest


# --- what seals are made from ------------------------------------------------------------


def mark(seq: int, epoch: int | None = None, producer: bytes = A, rank: int = 0) -> SealMark:
    phase = Phase.BEFORE if epoch is None else Phase.CHECKPOINT
    return SealMark(phase, epoch, rank, producer, seq, True, (f"{seq:03}", producer.hex(), seq))


def test_of_a_producers_marks_of_one_seal_the_first_stands(run_tx: LedgerTx) -> None:
    run_tx.add_marks(RUN, [mark(7), mark(3), mark(9), mark(5, producer=B), mark(8, epoch=2)])
    assert run_tx.marks(RUN, Phase.BEFORE) == [mark(3), mark(5, producer=B)]
    assert run_tx.marks(RUN, Phase.AFTER) == run_tx.marks(OTHER, Phase.BEFORE) == []


def test_a_checkpoint_is_due_where_each_rank_has_a_mark_that_counts(run_tx: LedgerTx) -> None:
    run_tx.add_marks(RUN, [mark(7, 4), mark(3, 2), mark(5, 4, B, 1), mark(6, 2, B, 1)])
    assert run_tx.checkpoint_marks(RUN, A, 3, 7) == [mark(3, 2)]
    assert run_tx.marked_epochs(RUN, -1) == [2, 4]
    assert run_tx.marked_epochs(RUN, 2) == [4]
    assert run_tx.marked_epochs(RUN, -1, 4) == [2]
    assert run_tx.is_marked(RUN, 4)
    assert not run_tx.is_marked(RUN, 3)
    assert run_tx.marks(RUN, Phase.CHECKPOINT, 4) == []
    run_tx.count_marks(RUN, A, [4, 2])
    run_tx.count_marks(RUN, B, [4])
    assert run_tx.marks(RUN, Phase.CHECKPOINT, 4) == [mark(5, 4, B, rank=1), mark(7, 4)]
    run_tx.add_due(RUN, 2, [2])
    assert run_tx.next_due(RUN, -1) is None
    run_tx.add_due(RUN, 2)
    run_tx.add_due(RUN, 2, [4])
    assert (run_tx.next_due(RUN, -1), run_tx.next_due(RUN, 4)) == (4, None)
    assert run_tx.awaiting_seal() == [RUN]
    run_tx.drop_due(RUN, 3)
    assert run_tx.next_due(RUN, -1) == 4
    run_tx.drop_due(RUN)
    assert run_tx.next_due(RUN, -1) is None
    assert run_tx.awaiting_seal() == []


def test_a_run_awaits_a_seal_that_is_asked_for_and_not_made(run_tx: LedgerTx) -> None:
    tree = TreeRow(RUN, A, "now", 3, 2, digest("d"), digest("m"), b"f")
    assert run_tx.awaiting_seal() == []
    run_tx.add_marks(RUN, [mark(3)])
    assert run_tx.awaiting_seal() == [RUN]
    run_tx.save_tree(tree)
    assert run_tx.awaiting_seal() == []
    run_tx.add_marks(OTHER, [mark(3)])
    assert run_tx.awaiting_seal() == [OTHER], "the tree is another run's"
    run_tx.seal_run(OTHER, 5.0, None)
    run_tx.save_tree(replace(tree, closed=4))
    assert run_tx.tree(RUN) == replace(tree, closed=4)
    assert run_tx.tree(OTHER) is None
    run_tx.add_marks(RUN, [replace(mark(9), phase=Phase.AFTER)])
    assert run_tx.awaiting_seal() == [RUN]
    run_tx.seal_run(RUN, 5.0, None)
    assert run_tx.awaiting_seal() == []
    assert run_tx.is_sealed(RUN, Phase.BEFORE, None) is False
    run_tx.append_entry(RUN, Phase.CHECKPOINT, 4, digest("r"), True, 1.0)
    assert run_tx.is_sealed(RUN, Phase.CHECKPOINT, 4) is True


def test_ranks_that_ended_are_counted_once(run_tx: LedgerTx) -> None:
    row = ProducerRow(RUN, A, 0, b"certificate", 0, digest("0"), 0)
    ranks = ((A, 0, 3), (B, 0, 0), (b"c" * 16, 1, None), (b"d" * 16, 7, 2))
    for producer, rank, ended in ranks:
        run_tx.save_producer(replace(row, producer=producer, rank=rank, ended=ended))
    assert run_tx.ended_ranks(RUN, 2) == 1
    assert run_tx.ended_ranks(RUN, 8) == 2
    for producer, state in ((b"e" * 16, "failed"), (b"f" * 16, "interrupted")):
        again = replace(row, producer=producer, rank=1, ended=1, end_state=state)
        run_tx.save_producer(again)
    assert run_tx.ended_ranks(RUN, 2) == 1, "rank 1 may come again"
    run_tx.save_producer(replace(again, producer=b"g" * 16, end_state="closed"))
    assert run_tx.ended_ranks(RUN, 2) == 2


# --- what producers sign -----------------------------------------------------------------


def test_the_first_identity_of_a_run_stands(tx: LedgerTx) -> None:
    assert tx.add_run(RUN, KEY, 1.0).identity is None
    assert tx.add_run(RUN, KEY, 1.0, b"alice").identity == b"alice"
    assert tx.add_run(RUN, KEY, 1.0, b"bob").identity == b"alice"
    assert tx.add_run(OTHER, KEY, 1.0).identity is None


def test_a_producer_is_one_row_that_moves(run_tx: LedgerTx) -> None:
    first = ProducerRow(RUN, A, 3, b"certificate", 0, digest("0"), 0)
    moved = replace(first, contiguous=5, chain=digest("5"), highest=2**53)
    other = replace(first, producer=B)
    elsewhere = replace(first, run=OTHER)
    for row in (other, first, elsewhere, moved):
        run_tx.save_producer(row)
    assert run_tx.producers(RUN) == [moved, other]
    assert run_tx.producer(RUN, A) == moved
    assert run_tx.producer(OTHER, B) is None


def test_statements_go_but_for_those_that_a_seal_keeps(run_tx: LedgerTx) -> None:
    rows = [StatementRow(RUN, A, count, bytes(64)) for count in (1, 4, 9)]
    other = StatementRow(RUN, B, 4, b"b" * 64)
    for row in (*rows[:2], other, replace(rows[0], signature=b"x" * 64)):
        run_tx.add_statement(row)
    run_tx.drop_statements(RUN, A, [1])
    run_tx.keep_statements(RUN)
    run_tx.add_statement(rows[2])
    run_tx.drop_statements(RUN, A, [4, 9])
    run_tx.add_statement(rows[0])
    assert run_tx.statements(RUN) == [rows[0], rows[1], other]
    assert run_tx.unkept_statements(RUN, A) == [rows[0]]
    assert run_tx.unkept_statements(RUN, B) == []


@pytest.mark.parametrize("seq", [-1, 2**53])
def test_a_sequence_number_out_of_range_is_refused(run_tx: LedgerTx, seq: int) -> None:
    with pytest.raises(InputError, match="seq"):
        run_tx.insert_records([record(seq)], 1.0)


def insert_alone(store: LedgerStore, row: StoredRecord) -> None:
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
        tx.insert_records([row], 1.0)


def test_an_epoch_out_of_range_is_refused(store: LedgerStore) -> None:
    with pytest.raises(InputError, match="cannot hold"):
        insert_alone(store, record(0, epoch=2**70))


@pytest.mark.parametrize(
    "bad",
    [
        record(0, run=OTHER),
        record(0, producer=b"short"),
        replace(record(0), digest=b"short"),
    ],
)
def test_the_database_refuses_a_malformed_record(store: LedgerStore, bad: StoredRecord) -> None:
    with pytest.raises(IntegrityError):
        insert_alone(store, bad)


def test_equivocations_are_kept_once(run_tx: LedgerTx) -> None:
    first = Equivocation(RUN, A, 1, digest("x"), b"x", 1.0, b"proof")
    second = replace(first, digest=digest("y"), data=b"y")
    elsewhere = replace(first, run=OTHER)
    for each in (first, second, elsewhere, replace(first, seen_at=9.0)):
        run_tx.add_equivocation(each)
    by_digest = sorted([first, second], key=lambda each: each.digest)
    assert run_tx.equivocations(RUN) == by_digest
    assert run_tx.equivocations() == [*by_digest, elsewhere]


def test_parked_batches_are_kept_once(tx: LedgerTx) -> None:
    first = Parked(digest("x").hex(), RUN, "bad signature", b"x", 2.0)
    second = Parked(digest("y").hex(), None, "not a batch", b"y", 1.0)
    for each in (first, second, replace(first, reason="later", parked_at=9.0)):
        tx.park(each)
    assert tx.parked() == [second, first]
    assert tx.parked(RUN) == [first]


def test_beyond_its_quota_a_run_is_counted_and_no_more(
    tx: LedgerTx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_part, "PARKED_OF_RUN", (3, 100))
    monkeypatch.setattr(records_part, "PARKED_IN_ALL", (6, 1000))

    def park(number: int, run: UUID | None, size: int = 1) -> None:
        payload = bytes(size) + number.to_bytes(2, "big")
        tx.park(Parked(hashlib.sha256(payload).hexdigest(), run, f"bad {number}", payload, 1.0))

    for number in range(7):
        park(number, RUN)
    park(50, OTHER, size=200)  # too large by itself
    kept = {row.reason for row in tx.parked(RUN)}
    assert kept == {
        "bad 0", "bad 1", "bad 2", "beyond the quota: 4 more refused, the newest: bad 6",
    }  # fmt: skip
    assert [row.reason for row in tx.parked(OTHER)] == [
        "beyond the quota: 1 more refused, the newest: bad 50"
    ]
    for number in range(100, 105):
        park(number, None)
    for number in range(200, 250):  # each a run of its own
        park(number, UUID(int=number))
    for number in (0, 1, 2):  # are kept already
        park(number, RUN)
    assert {row.reason for row in tx.parked(RUN)} == kept
    assert len(tx.parked()) <= 6 + 1
    assert "beyond the quota: 54 more refused, the newest: bad 249" in [
        row.reason for row in tx.parked() if row.run is None
    ]
    for row in tx.parked():
        assert hashlib.sha256(row.payload).hexdigest() == row.id


def test_what_was_parked_can_be_forgotten(tx: LedgerTx) -> None:
    rows = [
        Parked(digest(name).hex(), run, "bad", name.encode(), 1.0)
        for name, run in (("x", RUN), ("y", RUN), ("z", None), ("w", OTHER))
    ]
    for row in rows:
        tx.park(row)
    assert tx.forget_parked(ids=[rows[0].id]) == 1
    assert tx.forget_parked(RUN) == 1
    assert {row.id for row in tx.parked()} == {rows[2].id, rows[3].id}
    assert tx.forget_parked() == 2
    assert tx.parked() == []


def test_a_reason_may_hold_anything(tx: LedgerTx) -> None:
    tx.park(Parked(digest("x").hex(), None, "nul \0 surrogate \ud800 ü", b"", 1.0))
    assert tx.parked()[0].reason == "nul \N{REPLACEMENT CHARACTER} surrogate ? ü"


def test_keys_order_as_bytes(run_tx: LedgerTx) -> None:
    producers = [bytes([0] * 15 + [n]) for n in (0, 1, 127, 128, 255)]
    run_tx.insert_records([record(0, producer=each) for each in reversed(producers)], 1.0)
    found = [row.producer for row in run_tx.records(RUN)]
    assert all(a < b for a, b in pairwise(found))
    assert found == producers


# --- ledger ------------------------------------------------------------------------------


def test_entries_are_numbered_from_zero(run_tx: LedgerTx) -> None:
    roots = [digest(f"{i}") for i in range(4)]
    before = run_tx.append_entry(RUN, Phase.BEFORE, None, roots[0], True, 1.0)
    check = run_tx.append_entry(RUN, Phase.CHECKPOINT, 0, roots[1], False, 2.0)
    other = run_tx.append_entry(OTHER, Phase.BEFORE, None, roots[2], True, 3.0)
    after = run_tx.append_entry(RUN, Phase.AFTER, None, roots[3], True, 4.0)
    assert [entry.index for entry in (before, check, other, after)] == [0, 1, 2, 3]
    assert (before.epoch, check.epoch, before.anchor, check.anchor) == (None, 0, True, False)
    assert run_tx.entries() == [before, check, other, after]
    assert run_tx.entries(RUN) == [before, check, after]
    assert run_tx.entries(first=1, end=3) == [check, other]
    assert run_tx.entries(RUN, 1) == [check, after]
    assert run_tx.ledger_size() == 4
    assert run_tx.entry_of_root(roots[2]) == other
    assert run_tx.entry_of_root(digest("none")) is None
    assert run_tx.seals([RUN, OTHER]) == {
        RUN: [Phase.BEFORE, Phase.CHECKPOINT, Phase.AFTER],
        OTHER: [Phase.BEFORE],
    }


@pytest.mark.parametrize(("phase", "epoch"), [(Phase.BEFORE, None), (Phase.CHECKPOINT, 3)])
def test_the_entry_that_is_there_is_returned(
    run_tx: LedgerTx, phase: Phase, epoch: int | None
) -> None:
    first = run_tx.append_entry(RUN, phase, epoch, digest("x"), True, 1.0)
    assert run_tx.append_entry(RUN, phase, epoch, digest("y"), False, 2.0) == first
    assert run_tx.entries() == [first]


def test_a_seal_states_what_it_covers(store: LedgerStore) -> None:
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
        coverage = {b"\xff" * 16: 1, b"\x01" * 16: 2**53 - 1}
        entry = tx.append_entry(RUN, Phase.CHECKPOINT, 3, digest("x"), True, 1.0, coverage)
        assert entry.coverage == ((b"\x01" * 16, 2**53 - 1), (b"\xff" * 16, 1))
        again = tx.append_entry(RUN, Phase.CHECKPOINT, 3, digest("x"), True, 1.0, {})
        assert again == entry
        plain = tx.append_entry(RUN, Phase.CHECKPOINT, 4, digest("y"), True, 1.0)
        assert plain.coverage == ()
        for phase, stated in (
            (Phase.AFTER, {b"\x01" * 15: 1}),
            (Phase.CHECKPOINT, {b"\x01" * 16: 0}),
            (Phase.CHECKPOINT, {b"\x01" * 16: 2**53}),
        ):
            epoch = 5 if phase is Phase.CHECKPOINT else None
            with pytest.raises(InputError, match="coverage"):
                tx.append_entry(RUN, phase, epoch, digest("z"), True, 1.0, stated)
    with store.snapshot() as tx:
        assert tx.entries(RUN) == [entry, plain]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"01": 1}', '{"zz": 1}', f'{{"{"01" * 16}": 1.0}}', f'{{"{"01" * 16}": -1}}'],
)
def test_a_coverage_that_does_not_read_is_said(store: SqlStore, text: str) -> None:
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
        tx.append_entry(RUN, Phase.CHECKPOINT, 3, digest("x"), True, 1.0)
    with store.exclusive() as connection:
        connection.execute(update(ledger_entries).values(coverage=text))
    with (
        store.snapshot() as tx,
        pytest.raises(IntegrityError, match="ledger entry 0: what it states to cover"),
    ):
        tx.entries(RUN)


def test_an_entry_refuses_a_negative_epoch(run_tx: LedgerTx) -> None:
    with pytest.raises(InputError, match="epoch -1"):
        run_tx.append_entry(RUN, Phase.CHECKPOINT, -1, digest("x"), True, 1.0)


def test_the_first_head_of_a_size_stands(tx: LedgerTx) -> None:
    with_heads(tx, 2)
    first = tx.head(1)
    assert first == HeadRow(1, digest("root 1"), "note 1", b"frontier", 1.0)
    tx.add_head(replace(first, note="again", created_at=9.0))
    assert tx.head(1) == first
    with pytest.raises(EquivocationError, match="size 1"):
        tx.add_head(replace(first, root=digest("other")))
    assert [head.size for head in tx.heads()] == [1, 2]


def test_heads_are_found_by_page_root_and_cosignature(tx: LedgerTx) -> None:
    with_heads(tx, 4)
    assert [head.size for head in tx.heads(2, limit=2)] == [2, 3]
    assert tx.head_of_root(digest("root 3")) == tx.head(3)
    assert tx.head_of_root(digest("none")) is None
    assert tx.cosigned_head() is None
    body = f"example.org/l\n5\n{encode_base64(bytes(32))}\n\n"
    own = f"— example.org/l {encode_base64(bytes(68))}\n"
    witness = f"— w.example {encode_base64(bytes(76))}\n"
    tx.add_head(HeadRow(5, digest("root 5"), body + own + witness, b"frontier", 1.0))
    tx.add_head(HeadRow(6, digest("root 6"), body + own, b"frontier", 1.0))
    assert tx.cosigned_head() == tx.head(5)
    tx.extend_head_note(6, witness)
    assert tx.cosigned_head() == tx.head(6)


def test_unfinished_runs_are_counted_and_the_newest_named(tx: LedgerTx) -> None:
    assert (tx.run_counts(), tx.unfinished(9)) == ((0, 0), [])
    runs = [run_of(at) for at in range(4)]
    for at, run in enumerate(runs):
        tx.add_run(run, KEY, float(at))
        tx.append_entry(run, Phase.BEFORE, None, digest(f"{at}"), False, 1.0)
    tx.append_entry(runs[2], Phase.AFTER, None, digest("after"), False, 1.0)
    tx.seal_run(runs[1], 9.0, None)
    tx.seal_run(runs[2], 9.0, "rank 1: no run.end")
    assert tx.run_counts() == (4, 1)
    expected = [(runs[3], "open", (3,)), (runs[2], "sealed", (2, 4)), (runs[0], "open", (0,))]
    assert tx.unfinished(9) == expected
    assert tx.unfinished(2) == expected[:2]


def of_team(store: LedgerStore, team: str | None, now: float, number: int) -> UUID:
    """A run that began then."""
    producer = Producer(run_of(900 + number))
    producer.begin()
    producer.events[4].fields["team"] = team
    ingest(MemoryTransport(), store, POLICY, producer.deliveries(), lambda: now)
    return producer.run


def test_what_came_of_a_team_counts_by_days(store: LedgerStore) -> None:
    day = 86400.0
    runs = [
        of_team(store, team, at * day + 60, number)
        for number, (team, at) in enumerate((("a", 5), ("a", 5), ("b", 5), (None, 5), ("a", 6)))
    ]
    with store.snapshot() as tx:
        use = tx.team_use(5)
        assert {name: each.runs for name, each in use.items()} == {"a": 2, "b": 1}
        assert (
            use["a"].nbytes
            == 2 * use["b"].nbytes
            == sum(len(row.data) for run in runs[:2] for row in tx.records(run))
        )
        assert tx.team_use(6, "a")["a"].runs == 1
        assert tx.team_use(6, "b") == tx.team_use(7) == {}
        assert tx.teams_of([*runs, RUN]) == dict(zip(runs, ("a", "a", "b", None, "a"), strict=True))
        assert (tx.run_counts("a"), tx.run_counts()) == ((3, 0), (5, 0))
        assert {run for run, _, _ in tx.unfinished(9, "a")} == {runs[0], runs[1], runs[4]}


def test_a_run_is_held_back_until_it_is_released(tx: LedgerTx) -> None:
    tx.add_run(RUN, KEY, 1.0)
    first = HeldRun(RUN, "a", None, "why", 5.0)
    rows = [first, HeldRun(OTHER, "a", None, "why", 4.0), HeldRun(run_of(9), None, "ann", "x", 3.0)]
    for row in rows:
        tx.hold(row)
    assert (tx.held(RUN), tx.held(run_of(1))) == (first, None)
    assert tx.held_counts() == {("a", None): 2, (None, "ann"): 1}
    assert tx.held_runs("a", None, 9) == [rows[1], first]
    assert tx.held_runs(None, "ann", 1) == [rows[2]]
    tx.hold(replace(first, at=6.0))
    tx.release(rows, 7.0)
    assert tx.held_counts() == {("a", None): 1}, "it was held back again since"
    assert tx.last_ingest(RUN) == 7.0


def test_a_run_joins_a_team_once_and_what_came_before_counts(store: LedgerStore) -> None:
    for at, teams in ((1, ()), (2, ()), (3, ("a", "b")), (4, ("b",)), (4, (None,))):
        with store.transaction() as tx:
            tx.add_run(RUN, KEY, 1.0)
            tx.insert_records([record(at)], at * 86400.0)
            for team in teams[:1]:
                tx.join(RUN, team, at)
    with store.snapshot() as tx:
        assert tx.teams_of([RUN]) == {RUN: "a"}
        sizes = [len(row.data) for row in tx.records(RUN)]
        assert (tx.early_bytes(RUN), tx.early_bytes(OTHER)) == (0, 0)
        assert tx.team_use(4) == {"a": TeamUse(0, sizes[3])}


def test_of_too_many_runs_held_back_no_more_are_kept(
    tx: LedgerTx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_part, "MAX_HELD_RUNS", 2)
    rows = [HeldRun(run_of(at), "a", None, "why", float(at)) for at in range(3)]
    assert [tx.hold(row) for row in rows] == [True, True, False]
    assert tx.hold(replace(rows[0], at=9.0)), "one that is here moves on"
    assert tx.held_counts() == {("a", None): 2}
    tx.release(rows[1:], 9.0)
    assert tx.hold(rows[2])


def test_a_note_only_grows(store: LedgerStore) -> None:
    with store.transaction() as tx:
        with_heads(tx, 2)
        before = tx.head(1)
        assert before is not None
        longer = tx.extend_head_note(1, "— witness.example/w1 AAAA\n")
        assert longer == replace(before, note="note 1— witness.example/w1 AAAA\n")
        assert tx.extend_head_note(1, "— é\n").note == longer.note + "— é\n"
        with pytest.raises(InputError, match="no head at size 3"):
            tx.extend_head_note(3, "— witness.example/w1 AAAA\n")
    with store.snapshot() as tx:
        assert tx.head(1) == replace(longer, note=longer.note + "— é\n")
        assert [head.note for head in tx.heads()] == [longer.note + "— é\n", "note 2"]
        with pytest.raises(UsageError):
            tx.extend_head_note(1, "x")


def test_the_head_without_a_size_is_the_largest(tx: LedgerTx) -> None:
    assert tx.head() is None
    assert tx.head(1) is None
    with_heads(tx, 3)
    newest = tx.head()
    assert newest is not None
    assert newest.size == 3


def test_a_receipt_is_replaced_and_withdrawn(run_tx: LedgerTx) -> None:
    entry = run_tx.append_entry(RUN, Phase.BEFORE, None, digest("x"), True, 1.0)
    run_tx.append_entry(OTHER, Phase.BEFORE, None, digest("y"), True, 1.0)
    ethereum = with_anchor(run_tx)
    bitcoin = run_tx.add_anchor("bitcoin", 1, 1.0)
    first = ReceiptRow(entry.index, ethereum.id, "ethereum", '{"depth": 1}', 1.0)
    second = ReceiptRow(entry.index, bitcoin.id, "bitcoin", "{}", 1.0)
    elsewhere = ReceiptRow(1, ethereum.id, "ethereum", "{}", 1.0)
    run_tx.add_receipts([first, second, elsewhere])
    deeper = replace(first, document='{"depth": 12}', created_at=2.0)
    run_tx.add_receipts([deeper])
    run_tx.add_receipts([])
    assert run_tx.receipts(RUN) == [second, deeper]
    made = run_tx.receipt(ethereum.id)
    assert made is not None
    assert made[0] == 2
    assert made[1] in (deeper.document, elsewhere.document)
    run_tx.delete_receipts(ethereum.id)
    assert run_tx.receipt(ethereum.id) is None
    assert run_tx.receipts(RUN) == [second]
    assert run_tx.receipts(OTHER) == []
