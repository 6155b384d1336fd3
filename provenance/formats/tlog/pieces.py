"""What is known of one ledger's tree, be it little: roots and proofs as far as that goes.

An inclusion or consistency proof that verified tells the hashes of the ranges on its way. From
them follow roots at other sizes, and that they are prefixes: inclusion of leaf i gives the
roots at sizes i and i + 1. So two heads whose sizes nobody ever proved against each other may
be tied, or shown not to fit, all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from provenance.formats import merkle


class Pieces(Protocol):
    """Hashes of ranges of one ledger, as a :class:`provenance.formats.merkle.KeptTree` has them."""

    def hash(self, first: int, end: int) -> bytes | None:
        """MTH of a range; None where it is not known."""


def root_at(pieces: Pieces, size: int) -> bytes | None:
    """The root of the first ``size`` leaves; None where it does not follow."""
    return pieces.hash(0, size) if size else merkle.EMPTY_ROOT


def consistency(pieces: Pieces, old: int, size: int) -> tuple[bytes, ...] | None:
    """RFC 9162 consistency proof between two sizes; None where it does not follow."""
    hashes = [pieces.hash(first, end) for first, end in merkle.consistency_ranges(old, size)]
    known = [each for each in hashes if each is not None]
    return tuple(known) if len(known) == len(hashes) else None


class KnownPieces:
    """The hashes that some proofs told; ``sizes`` are those at which a root may follow."""

    def __init__(self, size: int, root: bytes) -> None:
        self._known: dict[merkle.Range, bytes] = {(0, size): root}
        self.sizes = {size}

    def hash(self, first: int, end: int) -> bytes | None:
        """MTH of a range, as it is known or follows from its complete subtrees."""
        direct = self._known.get((first, end))
        if direct is not None:
            return direct
        found = [
            self._known.get((at << height, at + 1 << height))
            for height, at in merkle.complete_subtrees(first, end)
        ]
        parts = [each for each in found if each is not None]
        return merkle.joined(parts) if len(parts) == len(found) else None

    def add_inclusion(
        self, entry: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
    ) -> None:
        """What an inclusion proof tells; ``ProofError`` where it does not verify."""
        merkle.verify_inclusion(entry, index, size, proof, root)
        mine, here = (index, index + 1), merkle.leaf_hash(entry)
        self._known[mine] = here
        for beside, value in zip(merkle.inclusion_ranges(index, size), proof, strict=True):
            self._known[beside] = value
            mine, here = _parent(mine, here, beside, value)
            self._known[mine] = here
        self.sizes |= {index, index + 1, size} - {0}

    def add_consistency(
        self, old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
    ) -> None:
        """What a consistency proof tells; ``ProofError`` where it does not verify."""
        merkle.verify_consistency(old, old_root, size, root, proof)
        self._known[0, old], self._known[0, size] = old_root, root
        self.sizes |= {old, size} - {0}
        walk = list(zip(merkle.consistency_ranges(old, size), proof, strict=True))
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


def _parent(
    mine: merkle.Range, here: bytes, beside: merkle.Range, value: bytes
) -> tuple[merkle.Range, bytes]:
    """The range over two neighbours, and its hash."""
    if beside[1] == mine[0]:
        return (beside[0], mine[1]), merkle.node_hash(value, here)
    return (mine[0], beside[1]), merkle.node_hash(here, value)
