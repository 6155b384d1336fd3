"""The kept tree against the plain one, which makes each proof from all leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.formats import merkle
from provenance.formats.ledger_tree import LedgerTree


def leaves(count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(count)]


def test_every_small_tree_agrees_with_the_plain_one() -> None:
    entries = leaves(40)
    tree = LedgerTree(entries)
    for size in range(len(entries) + 1):
        assert tree.root(size) == merkle.root(entries[:size])
        for index in range(size):
            assert tree.inclusion_proof(index, size) == merkle.inclusion_proof(
                entries[:size], index
            )
        for old in range(size + 1):
            assert tree.consistency_proof(old, size) == merkle.consistency_proof(
                entries[:size], old
            )


@given(st.data())
def test_any_tree_agrees_with_the_plain_one(data: st.DataObject) -> None:
    entries = leaves(data.draw(st.integers(1, 600)))
    size = data.draw(st.integers(1, len(entries)))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    tree = LedgerTree(entries)
    assert tree.root(size) == merkle.root(entries[:size])
    assert tree.inclusion_proof(index, size) == merkle.inclusion_proof(entries[:size], index)
    assert tree.consistency_proof(old, size) == merkle.consistency_proof(entries[:size], old)


def test_sizes_that_are_not_there_are_refused() -> None:
    tree = LedgerTree(leaves(5))
    for refused in (
        lambda: tree.root(6),
        lambda: tree.root(-1),
        lambda: tree.inclusion_proof(5, 5),
        lambda: tree.inclusion_proof(0, 6),
        lambda: tree.consistency_proof(4, 3),
        lambda: tree.consistency_proof(-1, 3),
    ):
        with pytest.raises(ValueError, match="^no "):
            refused()
