"""The ledger's levels on a real database against the tree over all entries in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provenance.errors import IntegrityError, ProofError
from provenance.formats.merkle import KeptTree, MerkleTree, leaf_hash, node_number, verify_inclusion
from provenance.formats.record import Phase
from provenance.ledger.seal import append_root
from provenance.stores.sql.schema import subtrees
from provenance.stores.sql.store import SqlStore
from tests.support.ledger_values import RUN
from tests.support.runs import POLICY

ROOTS = [hashlib.sha256(b"%d" % at).digest() for at in range(300)]
once = settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def grow(store: SqlStore, upto: int) -> None:
    with store.transaction() as tx:
        tx.add_run(RUN, bytes(32), 1.0)
        for at in range(tx.ledger_size(), upto):
            tx.append_entry(RUN, Phase.CHECKPOINT, at, ROOTS[at], False, 1.0)


@pytest.mark.slow
@once
@given(data=st.data())
def test_rows_give_what_all_entries_give(data: st.DataObject, tmp_path: Path) -> None:
    """Appended in any portions; roots and proofs at any sizes, one and many at a time."""
    path = tmp_path / f"{hash(data)}.db"
    path.unlink(missing_ok=True)
    store = SqlStore.open(f"sqlite:///{path}")
    for upto in sorted(data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=4))):
        grow(store, upto)
        naive = MerkleTree(ROOTS[:upto])
        with store.snapshot() as tx:
            kept = KeptTree(tx.ledger_size(), tx.subtrees)
            assert kept.size == upto
            assert kept.root() == naive.root()
            sizes = sorted(data.draw(st.lists(st.integers(0, upto), min_size=2, max_size=5)))
            assert kept.roots(sizes) == [naive.root(size) for size in sizes]
            pairs = [(old, new) for old in sizes for new in sizes if old <= new]
            places = [(old, new) for old, new in pairs if old < new]
            assert kept.consistency_proofs(pairs) == [naive.consistency_proof(*p) for p in pairs]
            assert kept.inclusion_proofs(places) == [naive.inclusion_proof(*p) for p in places]
            wanted = [(0, at) for at in range(upto)]
            assert list(tx.subtrees(wanted)) == list(map(leaf_hash, ROOTS[:upto]))
    store.close()


def test_a_damaged_row_neither_spreads_nor_stops_the_ledger(tmp_path: Path) -> None:
    store = SqlStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")

    def seal(first: int, end: int) -> None:
        with store.transaction() as tx:
            tx.add_run(RUN, bytes(32), 1.0)
            for at in range(first, end):
                append_root(tx, RUN, Phase.CHECKPOINT, at, ROOTS[at], False, POLICY, 1.0)

    seal(0, 12)
    with store.exclusive() as connection:
        rows = subtrees.c.node.in_([node_number(2, 2), node_number(1, 4)])
        connection.execute(subtrees.update().where(rows).values(hash=bytes(32)))
        connection.execute(subtrees.delete().where(subtrees.c.node == node_number(3, 0)))
    seal(12, 16)
    with store.snapshot() as tx:
        assert list(tx.subtrees([(4, 0)])) == [MerkleTree(ROOTS[:16]).root()]
    store.close()


@pytest.mark.slow
@once
@given(size=st.integers(2, 200), data=st.data())
def test_a_damaged_row_proves_nothing(size: int, data: st.DataObject, tmp_path: Path) -> None:
    """A changed hash leads elsewhere wherever a proof uses it; one that is gone is named."""
    path = tmp_path / f"{hash(data)}.db"
    path.unlink(missing_ok=True)
    store = SqlStore.open(f"sqlite:///{path}")
    grow(store, size)
    naive = MerkleTree(ROOTS[:size])
    height = data.draw(st.integers(1, size.bit_length() - 1))
    number = data.draw(st.integers(0, (size >> height) - 1))
    row = subtrees.c.node == node_number(height, number)
    covered = range(number << height, number + 1 << height)
    with store.exclusive() as connection:
        connection.execute(subtrees.update().where(row).values(hash=bytes(32)))
    with store.snapshot() as tx:
        kept = KeptTree(size, tx.subtrees)
        for index in range(size):
            proof = kept.inclusion_proof(index)
            if proof == naive.inclusion_proof(index):
                continue
            assert index not in covered
            with pytest.raises(ProofError):
                verify_inclusion(ROOTS[index], index, size, proof, naive.root())
    for change in ("UPDATE subtrees SET hash=4611686018427387904", "DELETE FROM subtrees"):
        with store.exclusive() as connection:
            connection.exec_driver_sql("PRAGMA ignore_check_constraints=ON")
            connection.exec_driver_sql(f"{change} WHERE node={node_number(height, number)}")
        with (
            store.snapshot() as tx,
            pytest.raises(IntegrityError, match=f"subtree {number} of height {height} is gone"),
        ):
            tx.subtrees([(height, number)])
    store.close()
