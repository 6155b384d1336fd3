"""The growing run tree against the tree that is built anew from all records."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from provenance.formats.run_tree.growing import GrowingTree, epoch_entry
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree, RecordLeaf

BEFORE = ("data.train", "data.test", "model.architecture", "model.weights", "config")
EPOCH = ("state", "metrics", "privacy")
digests = st.binary(min_size=32, max_size=32)
orders = st.tuples(st.sampled_from(("a", "b")), st.sampled_from(("aa", "bb")), st.integers(0, 9))


def _leaves(
    kinds: Sequence[str], epochs: st.SearchStrategy[int | None]
) -> st.SearchStrategy[list[RecordLeaf]]:
    leaf = st.builds(
        RecordLeaf, st.sampled_from(kinds), epochs, st.none() | st.integers(0, 3), orders, digests
    )
    return st.lists(leaf, max_size=8)


@given(
    _leaves(BEFORE, st.none()),
    _leaves(EPOCH, st.integers(0, 5)),
    _leaves(("results",), st.none()),
    st.lists(digests, max_size=3),
    st.integers(0, 6),
)
def test_each_root_is_that_of_the_tree_built_from_all_records(
    before: list[RecordLeaf],
    epochs: list[RecordLeaf],
    results: list[RecordLeaf],
    producers: list[bytes],
    cut: int,
) -> None:
    by_epoch: dict[int, list[RecordLeaf]] = {}
    for leaf in epochs:
        by_epoch.setdefault(leaf.epoch or 0, []).append(leaf)
    tree = GrowingTree.start(reversed(before))
    assert tree.root(producers) == MLProvenanceMerkleTree(before, producers).root
    early, late = (
        [epoch_entry(by_epoch[e]) for e in sorted(by_epoch) if (e < cut) is side]
        for side in (True, False)
    )
    tree = tree.extend(early)
    known = [*before, *(leaf for leaf in epochs if (leaf.epoch or 0) < cut)]
    assert tree.root(producers) == MLProvenanceMerkleTree(known, producers).root
    tree = tree.extend(late).add(results)
    whole = MLProvenanceMerkleTree([*before, *epochs, *results], producers)
    assert tree.root(producers) == whole.root
