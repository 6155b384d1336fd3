"""What is known of one ledger's tree, be it little: roots and proofs as far as that goes.

WARNING: FROZEN FORMAT, as :mod:`provenance.formats.merkle`. No I/O, no clock, no randomness.

A *range* ``(first, end)`` is the leaves from ``first`` to ``end - 1``, where ``first`` is a
multiple of the largest power of two in their number: what RFC 9162 section 2.1 ever hashes. An
inclusion or consistency proof that verified tells the hashes of the ranges on its way. From
them follow roots at other sizes, and that they are prefixes: inclusion of leaf i gives the
roots at sizes i and i + 1. So two heads whose sizes nobody ever proved against each other may
be tied, or shown not to fit, all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Protocol

from provenance.formats.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

Range = tuple[int, int]


class Pieces(Protocol):
    """Hashes of ranges of one ledger."""

    def hash(self, first: int, end: int) -> bytes | None:
        """MTH of a range; None where it is not known."""


def root_at(pieces: Pieces, size: int) -> bytes | None:
    """The root of the first ``size`` leaves; None where it does not follow."""
    return pieces.hash(0, size) if size else EMPTY_ROOT


def consistency(pieces: Pieces, old: int, size: int) -> tuple[bytes, ...] | None:
    """RFC 9162 consistency proof between two sizes; None where it does not follow."""
    hashes = [pieces.hash(first, end) for first, end in _consistency_ranges(old, size)]
    known = [each for each in hashes if each is not None]
    return tuple(known) if len(known) == len(hashes) else None


class SubtreePieces:
    """A ledger whose complete subtrees can all be read.

    Args:
        size: Leaves.
        subtree: The root of the complete subtree number ``at`` of 2**height leaves.
    """

    def __init__(self, size: int, subtree: Callable[[int, int], bytes]) -> None:
        self.size = size
        self._subtree = subtree

    @classmethod
    def of(cls, tree: MerkleTree) -> SubtreePieces:
        """All of a tree."""
        return cls(tree.size, lambda height, at: tree.subtrees(height)[at])

    def hash(self, first: int, end: int) -> bytes | None:
        """MTH of a range; None beyond the ledger's size."""
        if end > self.size:
            return None
        return _joined([self._subtree(height, at) for height, at in _complete(first, end)])


class KnownPieces:
    """The hashes that some proofs told.

    Attributes:
        sizes: At which a root may follow, beside others.
    """

    def __init__(self, size: int, root: bytes) -> None:
        self._known: dict[Range, bytes] = {(0, size): root}
        self.sizes = {size}

    def hash(self, first: int, end: int) -> bytes | None:
        """MTH of a range, as it is known or follows from its complete subtrees."""
        direct = self._known.get((first, end))
        if direct is not None:
            return direct
        found = [
            self._known.get((at << height, at + 1 << height))
            for height, at in _complete(first, end)
        ]
        parts = [each for each in found if each is not None]
        return _joined(parts) if len(parts) == len(found) else None

    def add_inclusion(
        self, entry: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
    ) -> None:
        """What the inclusion of an entry in the ledger at a size tells.

        Raises:
            ProofError: It does not verify; nothing is kept.
        """
        verify_inclusion(entry, index, size, proof, root)
        mine, here = (index, index + 1), leaf_hash(entry)
        self._known[mine] = here
        for beside, value in zip(_inclusion_ranges(index, size), proof, strict=True):
            self._known[beside] = value
            mine, here = _parent(mine, here, beside, value)
            self._known[mine] = here
        self.sizes |= {index, index + 1, size} - {0}

    def add_consistency(
        self, old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
    ) -> None:
        """What a consistency proof between two roots tells.

        Raises:
            ProofError: It does not verify; nothing is kept.
        """
        verify_consistency(old, old_root, size, root, proof)
        self._known[0, old], self._known[0, size] = old_root, root
        self.sizes |= {old, size} - {0}
        walk = list(zip(_consistency_ranges(old, size), proof, strict=True))
        if walk and walk[0][0][0] == old:  # the old tree is complete: the proof leaves it out
            walk.insert(0, ((0, old), old_root))
        if not walk:
            return
        before = after = walk[0]
        self._known |= dict(walk)
        for beside in walk[1:]:
            if beside[0][1] == before[0][0]:  # to the left: in the old tree too
                before = _parent(*before, *beside)
            after = _parent(*after, *beside)
            self._known |= dict((before, after))

    def update(self, prefix: KnownPieces) -> None:
        """All that is known of a ledger of which this one is proven to be a continuation."""
        self._known |= prefix._known
        self.sizes |= prefix.sizes


def _parent(mine: Range, here: bytes, beside: Range, value: bytes) -> tuple[Range, bytes]:
    """The range over two neighbours, and its hash."""
    if beside[1] == mine[0]:
        return (beside[0], mine[1]), node_hash(value, here)
    return (mine[0], beside[1]), node_hash(here, value)


def _split(first: int, end: int) -> int:
    """Where RFC 9162 divides a range of at least two leaves."""
    return first + (1 << (end - first - 1).bit_length() - 1)


def _inclusion_ranges(index: int, size: int) -> list[Range]:
    """The siblings that an inclusion proof has, lowest first (section 2.1.3.1)."""
    found: list[Range] = []
    first, end = 0, size
    while end - first > 1:
        middle = _split(first, end)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((first, middle))
            first = middle
    return found[::-1]


def _consistency_ranges(old: int, size: int) -> list[Range]:
    """What a consistency proof has, lowest first (section 2.1.4.1)."""
    found: list[Range] = []
    first, end, whole = 0, size, True
    while 0 < old < end:
        middle = _split(first, end)
        if old <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((first, middle))
            first, whole = middle, False
    if not whole:
        found.append((first, end))
    return found[::-1]


def _complete(first: int, end: int) -> list[tuple[int, int]]:
    """The complete subtrees of a range, left to right: height and number."""
    found = []
    while first < end:
        height = (end - first).bit_length() - 1
        found.append((height, first >> height))
        first += 1 << height
    return found


def _joined(parts: Sequence[bytes]) -> bytes:
    return reduce(lambda right, left: node_hash(left, right), reversed(parts))
