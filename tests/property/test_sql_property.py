"""Random inserts against a dictionary: idempotence, the first value, contiguous prefixes."""

from __future__ import annotations

from functools import cache
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.ports.values import Inserted, StoredRecord
from provenance.stores.sql import SqlStore
from tests.support.ledger_values import KEY, A, B, record

_Slot = tuple[int, bytes, int, str]
"""Which of two runs, producer, seq, content."""

_seqs = st.integers(0, 12) | st.integers(0, 300) | st.integers(0, 2**53 - 1)
_slots = st.tuples(
    st.integers(0, 1), st.sampled_from([A, B]), _seqs, st.sampled_from(["one", "two"])
)
_batches = st.lists(st.lists(_slots, max_size=30), max_size=8)
_Key = tuple[UUID, bytes, int]


@cache
def shared_store() -> SqlStore:
    """One for all examples, which use runs of their own."""
    return SqlStore.open("sqlite://")


def new_run() -> UUID:
    run = uuid4()
    with shared_store().transaction() as tx:
        tx.add_run(run, KEY, 1.0)
    return run


@settings(max_examples=150, deadline=None)
@given(_batches, st.booleans())
@pytest.mark.slow
def test_any_order_of_batches_against_a_dictionary(
    batches: list[list[_Slot]], one_by_one: bool
) -> None:
    store = shared_store()
    runs = [new_run(), new_run()]
    known: dict[_Key, StoredRecord] = {}
    for slots in batches:
        batch = [record(seq, run=runs[n], producer=p, text=text) for n, p, seq, text in slots]
        expected = []
        for row in batch:
            first = known.setdefault((row.run, row.producer, row.seq), row)
            if first is row:
                expected.append(Inserted.NEW)
            else:
                same = first.digest == row.digest
                expected.append(Inserted.DUPLICATE if same else Inserted.CONFLICT)
        with store.transaction() as tx:
            if one_by_one:
                assert [tx.insert_records([row], 1.0)[0] for row in batch] == expected
            else:
                assert list(tx.insert_records(batch, 1.0)) == expected
    with store.snapshot() as seen:
        for run in runs:
            mine = sorted((key for key in known if key[0] == run), key=lambda key: key[1:])
            assert seen.records(run) == [known[key] for key in mine]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.permutations(range(40)), st.integers(1, 40), st.integers(0, 39))
def test_delivery_in_any_order_ends_the_same(order: list[int], size: int, again: int) -> None:
    store, run = shared_store(), new_run()
    delivered = [*order, *order[again:]]
    for start in range(0, len(delivered), size):
        rows = [record(seq, run=run) for seq in delivered[start : start + size]]
        with store.transaction() as tx:
            tx.insert_records(rows, 1.0)
    with store.snapshot() as seen:
        assert seen.records(run) == [record(seq, run=run) for seq in range(40)]
