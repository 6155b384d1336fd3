"""The run tree as it grows: a root at each seal, for the cost of what is new.

FROZEN FORMAT. The roots are those of :class:`.tree.MLProvenanceMerkleTree`
over the same leaves; what is kept between two seals is two hashes and a frontier. Epochs are
added by number, so that the tree at one seal is a prefix of that at the next by construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from provenance.formats import merkle
from provenance.formats.frontier import Frontier
from provenance.formats.run_tree.proof import EPOCH_CHILDREN, SLOTS
from provenance.formats.run_tree.tree import RecordLeaf


@dataclass(frozen=True, slots=True)
class GrowingTree:
    """What is kept of a run tree between two seals.

    Attributes:
        data, model: The roots of these nodes, 32 bytes; they stand from the first seal on.
        training: The entries of ``training`` so far.
    """

    data: bytes
    model: bytes
    training: Frontier

    @classmethod
    def start(cls, leaves: Iterable[RecordLeaf]) -> GrowingTree:
        """The tree at the *before* seal; leaves of epochs and results have no place in it."""
        by_kind = _by_kind(leaves)
        data, model = (
            merkle.root([_slot(by_kind.get(f"{top}.{name}", ())) for name in names])
            for top, names in SLOTS.items()
        )
        return cls(data, model, Frontier.empty()).add(by_kind.get("config", ()))

    def add(self, leaves: Iterable[RecordLeaf]) -> GrowingTree:
        """After records that stand directly under ``training``: config or results."""
        return self.extend([leaf.digest for leaf in sorted(leaves, key=_sort_key)])

    def extend(self, entries: Iterable[bytes]) -> GrowingTree:
        """After more entries of ``training``, 32 bytes each: epochs by number."""
        return replace(self, training=self.training.extend(entries))

    def root(self, producers: Iterable[bytes]) -> bytes:
        """The run root, 32 bytes.

        Args:
            producers: Digest of each producer's statement, in the order of their ids.
        """
        return merkle.root(
            [self.data, self.model, self.training.root(), merkle.root(list(producers))]
        )


def epoch_entry(leaves: Iterable[RecordLeaf]) -> bytes:
    """What one epoch's records, in any order, enter ``training`` as; 32 bytes."""
    by_kind = _by_kind(leaves)
    return merkle.root([_slot(by_kind.get(kind, ())) for kind in EPOCH_CHILDREN])


def _by_kind(leaves: Iterable[RecordLeaf]) -> dict[str, list[RecordLeaf]]:
    by_kind: dict[str, list[RecordLeaf]] = {}
    for leaf in leaves:
        by_kind.setdefault(leaf.kind, []).append(leaf)
    return by_kind


def _slot(leaves: Iterable[RecordLeaf]) -> bytes:
    return merkle.root([leaf.digest for leaf in sorted(leaves, key=_sort_key)])


def _sort_key(leaf: RecordLeaf) -> tuple[int, tuple[str, str, int], bytes]:
    return leaf.sort_key
