"""The ledger's Merkle tree with its hashes kept, so that many proofs cost few hashes.

Roots and proofs are those of :mod:`provenance.formats.merkle`, which makes each from all leaves;
here a proof of a ledger with n entries takes O(log n) hashes once the tree is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from provenance.formats.merkle import EMPTY_ROOT, leaf_hash, node_hash


class LedgerTree:
    """RFC 9162 roots and proofs at any size up to that of the entries given.

    Args:
        entries: Leaf data, in order.
    """

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.size = len(entries)
        level = [leaf_hash(data) for data in entries]
        self._levels = [level]
        """By height: the hashes of all complete subtrees of 2**height leaves."""
        while len(level) > 1:
            level = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
            self._levels.append(level)

    def root(self, size: int) -> bytes:
        """MTH of the first ``size`` entries.

        Raises:
            ValueError: The tree has fewer.
        """
        self._require(size)
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Of entry ``index`` in the first ``size`` (RFC 9162 section 2.1.3.1).

        Raises:
            ValueError: There is no such entry.
        """
        self._require(size)
        if not 0 <= index < size:
            raise ValueError(f"no leaf {index} in a tree of {size}")
        proof: list[bytes] = []
        first, end = 0, size
        while end - first > 1:
            middle = first + _split(end - first)
            if index < middle:
                proof.append(self._hash(middle, end))
                end = middle
            else:
                proof.append(self._hash(first, middle))
                first = middle
        return tuple(reversed(proof))

    def consistency_proof(self, old_size: int, size: int) -> tuple[bytes, ...]:
        """Of the first ``old_size`` entries in the first ``size`` (RFC 9162 section 2.1.4.1);
        ``()`` where the sizes are equal and where ``old_size`` is 0.

        Raises:
            ValueError: There are no such sizes.
        """
        self._require(size)
        if not 0 <= old_size <= size:
            raise ValueError(f"no prefix of {old_size} in a tree of {size}")
        if old_size in (0, size):
            return ()
        proof: list[bytes] = []
        first, end, whole = 0, size, True
        while old_size != end:
            middle = first + _split(end - first)
            if old_size <= middle:
                proof.append(self._hash(middle, end))
                end = middle
            else:
                proof.append(self._hash(first, middle))
                first, whole = middle, False
        if not whole:
            proof.append(self._hash(first, end))
        return tuple(reversed(proof))

    def _hash(self, first: int, end: int) -> bytes:
        """MTH of entries ``first`` to ``end``, where ``first`` is a multiple of the largest
        power of two in them; from the complete subtrees, right to left."""
        parts: list[bytes] = []
        at = first
        while at < end:
            height = (end - at).bit_length() - 1
            parts.append(self._levels[height][at >> height])
            at += 1 << height
        found = parts.pop()
        while parts:
            found = node_hash(parts.pop(), found)
        return found

    def _require(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise ValueError(f"no {size} leaves in a tree of {self.size}")


def _split(count: int) -> int:
    """The largest power of two smaller than ``count``."""
    return 1 << ((count - 1).bit_length() - 1)
