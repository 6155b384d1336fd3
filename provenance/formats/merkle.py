"""Merkle trees and proofs over SHA-256, as in RFC 6962 and RFC 9162.

::

    MTH([])     = SHA-256("")
    MTH([d])    = SHA-256(00 || d)                            leaf_hash
    MTH(D[0:n]) = SHA-256(01 || MTH(D[0:k]) || MTH(D[k:n]))   node_hash
                  k = the largest power of two smaller than n

Leaf *data* is the entry as it was logged, of any length; a leaf *hash* is ``leaf_hash(data)``.
Functions take leaf data unless their name ends in ``_of_hashes``. Every root, hash and proof
element is exactly 32 bytes.

What makes a root or proof raises ``ValueError`` for an index or size that does not exist: the
caller's slip. What checks evidence (``verify_*``, ``path_steps``) raises ``ProofError``.

Over 400 lines: one frozen definition of trees, proofs and their checks.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from provenance.errors import (
    ProofError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)

HASH_SIZE: Final = 32
MAX_SIZE: Final = 2**63 - 1
"""Largest tree, in leaves. Beyond it is an error, not a slow answer."""

LEAF_PREFIX: Final = b"\x00"
NODE_PREFIX: Final = b"\x01"
_MAGIC: Final = b"MLPF"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">4sBQ")
"""Of a frontier."""
EMPTY_ROOT: Final[bytes] = hashlib.sha256(b"").digest()
"""MTH of no leaves (RFC 9162 section 2.1.1)."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(00 || data): the hash of one leaf (RFC 9162 section 2.1.1); 32 bytes."""
    return hashlib.sha256(LEAF_PREFIX + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(01 || left || right): an inner node (RFC 9162 section 2.1.1); 32 bytes."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Merkle Tree Hash over leaf data, in linear time and without recursion."""
    level = [leaf_hash(data) for data in leaves]
    while len(level) > 1:  # a last one without a neighbour stays as it is
        pairs = range(0, len(level) - 1, 2)
        level = [node_hash(level[at], level[at + 1]) for at in pairs] + level[len(level) & ~1 :]
    return level[0] if level else EMPTY_ROOT


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """Merkle Tree Hash over leaf hashes; ``ValueError`` where one is not 32 bytes."""
    return MerkleTree.of_hashes(hashes).root()


Range = tuple[int, int]
"""Leaves ``first`` to ``end - 1``, where ``first`` is a multiple of the largest power of two in
their number: what RFC 9162 section 2.1 ever hashes."""
Subtree = tuple[int, int]
"""Height and number of a complete subtree: leaves ``number * 2**height`` and on, ``2**height``
of them. Height 0 is a leaf."""
ReadSubtrees = Callable[[Sequence[Subtree]], Sequence[bytes]]
"""The roots of complete subtrees, 32 bytes each, in the order asked for; called once for all
that a root or a proof needs."""


class KeptTree:
    """A tree whose complete subtrees are kept: in memory, in rows of a database, in tiles. A root
    or proof at any size reads O(log n) of them, in one call of ``read``."""

    def __init__(self, size: int, read: ReadSubtrees) -> None:
        self._size, self.read = size, read

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._size

    def root(self, size: int | None = None) -> bytes:
        """Merkle Tree Hash of the first ``size`` leaves; of all where None."""
        size = self._require(size)
        return joined(self.read(complete_subtrees(0, size))) if size else EMPTY_ROOT

    def roots(self, sizes: Sequence[int]) -> list[bytes]:
        """As `root`, for each size."""
        known = self.hashes([(0, self._require(size)) for size in sizes])
        return [known[0, size] if size else EMPTY_ROOT for size in sizes]

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Siblings from leaf ``index`` up to the root at ``size`` (None: of all leaves), lowest
        first (RFC 9162 section 2.1.3.1)."""
        return self.inclusion_proofs([(index, self._require(size))])[0]

    def consistency_proof(self, old_size: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the first ``old_size`` leaves are a prefix of the first ``size`` (None: of all
        leaves); RFC 9162 section 2.1.4.1. Empty where the sizes are equal or ``old_size`` is 0."""
        return self.consistency_proofs([(old_size, self._require(size))])[0]

    def inclusion_proofs(self, places: Iterable[tuple[int, int]]) -> list[tuple[bytes, ...]]:
        """As `inclusion_proof`, for each index and size, with one read for all of them."""
        return self._proofs([inclusion_ranges(*place) for place in places])

    def consistency_proofs(self, sizes: Iterable[tuple[int, int]]) -> list[tuple[bytes, ...]]:
        """As `consistency_proof`, for each old and new size, with one read for all of them."""
        return self._proofs([consistency_ranges(*pair) for pair in sizes])

    def hashes(self, ranges: Iterable[Range]) -> dict[Range, bytes]:
        """MTH of ranges that are not empty, with one read for all of them."""
        parts = {own: complete_subtrees(*own) for own in ranges if own[1]}
        wanted = list(dict.fromkeys(part for own in parts.values() for part in own))
        known = dict(zip(wanted, self.read(wanted) if wanted else (), strict=True))
        return {own: joined([known[part] for part in parts[own]]) for own in parts}

    def hash(self, first: int, end: int) -> bytes | None:
        """MTH of a range; None beyond the tree's size."""
        return self.hashes([(first, end)])[first, end] if end <= self.size else None

    def _proofs(self, walks: Sequence[Sequence[Range]]) -> list[tuple[bytes, ...]]:
        known = self.hashes(own for walk in walks for own in walk)
        return [tuple(known[own] for own in walk) for walk in walks]

    def _require(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"no {size} leaves in a tree of {self.size}")
        return size


class MerkleTree(KeptTree):
    """A growing tree in memory, so that many roots and proofs cost few new hashes.

    Where all that is needed is to append, a :class:`Frontier` is enough.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        """By height: the roots of all complete subtrees of 2**height leaves."""
        super().__init__(0, lambda wanted: [self._levels[at][number] for at, number in wanted])
        self.extend(leaves)

    @classmethod
    def of_hashes(cls, hashes: Sequence[bytes]) -> MerkleTree:
        """The tree over leaf hashes; ``ValueError`` where one is not 32 bytes."""
        _check_sizes("hash", hashes, ValueError)
        tree = cls()
        tree._grow(hashes)
        return tree

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves, in order (leaf data, hashed here)."""
        self._grow([leaf_hash(data) for data in leaves])

    def _grow(self, hashes: Sequence[bytes]) -> None:
        self._levels[0] += hashes
        self._size = len(self._levels[0])
        for height, below in enumerate(self._levels):  # which grows meanwhile
            if len(below) > 1 and height + 1 == len(self._levels):
                self._levels.append([])
            if len(below) > 1:
                above = self._levels[height + 1]
                pairs = range(2 * len(above), len(below) - 1, 2)
                above += [node_hash(below[at], below[at + 1]) for at in pairs]


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The siblings that an inclusion proof has, lowest first (RFC 9162 section 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    ranges: list[Range] = []
    first, end = 0, size
    while end - first > 1:
        middle = _split(first, end)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first = middle
    return ranges[::-1]


def ranges_beside(indices: Sequence[int], size: int) -> list[Range]:
    """The largest ranges without any of some leaves, left to right: what proves all those leaves
    at once, each sibling of their paths that is on none of the paths. ``indices`` ascend."""
    ranges: list[Range] = []
    left = [(0, size)] if size else []
    while left:
        first, end = left.pop()
        at = bisect_left(indices, first)
        if at == len(indices) or indices[at] >= end:
            ranges.append((first, end))
        elif end - first > 1:
            middle = _split(first, end)
            left += [(middle, end), (first, middle)]
    return ranges


def root_of_some(leaves: Mapping[int, bytes], size: int, proof: Sequence[bytes]) -> bytes:
    """The root of a tree of ``size`` that has these leaves (leaf data by index), from the hashes of
    `ranges_beside` them; ``ProofError`` where there is no such leaf, or of another number of
    hashes."""
    where, indices = f"inclusion of {len(leaves)} leaves in a tree of {size}", sorted(leaves)
    if not 0 <= size <= MAX_SIZE or (indices and not 0 <= indices[0] <= indices[-1] < size):
        raise ProofError(f"{where}: no such leaves")
    ranges = ranges_beside(indices, size)
    if len(proof) != len(ranges):
        raise ProofError(f"{where}: proof has {len(proof)} elements, needs {len(ranges)}")
    _check_sizes(f"{where}: element", proof, ProofError)
    known = dict(zip(ranges, proof, strict=True))

    def root_of(first: int, end: int) -> bytes:
        if (beside := known.get((first, end))) is not None:
            return beside
        if end - first == 1:
            return leaf_hash(leaves[first])
        middle = _split(first, end)
        return node_hash(root_of(first, middle), root_of(middle, end))

    return root_of(0, size) if size else EMPTY_ROOT


def consistency_ranges(old: int, size: int) -> list[Range]:
    """What a consistency proof has, lowest first (RFC 9162 section 2.1.4.1)."""
    if not 0 <= old <= size:
        raise ValueError(f"no prefix of {old} in a tree of {size}")
    # SUBPROOF(m, D[first:end], b) of the RFC, walked down; its proof is listed bottom up.
    ranges: list[Range] = []
    first, end, whole = 0, size, True
    while 0 < old < end:
        middle = _split(first, end)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((first, middle))
            first, whole = middle, False
    if not whole:
        ranges.append((first, end))
    return ranges[::-1]


def complete_subtrees(first: int, end: int) -> list[Subtree]:
    """The complete subtrees that a range is made of, left to right."""
    parts = []
    while first < end:
        height = (end - first).bit_length() - 1
        parts.append((height, first >> height))
        first += 1 << height
    return parts


def completed_by(index: int) -> list[Subtree]:
    """The left siblings of the subtrees that leaf ``index`` completes, lowest first: the leaf
    joined with the first is the root of the subtree of height 1 that ends with it, and so on."""
    height, siblings = 0, []
    while index >> height & 1:
        siblings.append((height, (index >> height) - 1))
        height += 1
    return siblings


def node_number(height: int, number: int) -> int:
    """The number of a subtree's root where all nodes are counted from left to right: leaf n is
    2n, a node lies between its two halves (RFC 9420 appendix C)."""
    return (2 * number + 1 << height) - 1


def joined(parts: Sequence[bytes]) -> bytes:
    """MTH of a range from its complete subtrees, left to right; at least one."""
    return reduce(lambda right, left: node_hash(left, right), reversed(parts))


def _split(first: int, end: int) -> int:
    """Where RFC 9162 divides a range of at least two leaves: the largest power of two below
    their number."""
    return first + (1 << (end - first - 1).bit_length() - 1)


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that a growing tree must remember to append to it, a value: its size, and the root of
    each complete subtree, largest first. ``ValueError`` where they do not fit each other."""

    size: int
    nodes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise ValueError(f"frontier size must be 0 to {MAX_SIZE}, got {self.size}")
        if len(self.nodes) != self.size.bit_count():
            raise ValueError(
                f"a frontier of size {self.size} has {self.size.bit_count()} nodes,"
                f" got {len(self.nodes)}"
            )
        _check_sizes("hash", self.nodes, ValueError)

    @classmethod
    def empty(cls) -> Frontier:
        """The frontier of no leaves."""
        return cls(0, ())

    def append(self, data: bytes) -> Frontier:
        """The frontier after one more leaf (leaf data, hashed here)."""
        return self.extend((data,))

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after more leaves, in order (leaf data, hashed here)."""
        size, nodes = self.size, list(self.nodes)
        for data in leaves:
            node, carry = leaf_hash(data), size
            while carry & 1:
                node, carry = node_hash(nodes.pop(), node), carry >> 1
            nodes.append(node)
            size += 1
        return Frontier(size, tuple(nodes))

    def root(self) -> bytes:
        """Merkle Tree Hash of the leaves so far; 32 bytes."""
        return joined(self.nodes) if self.nodes else EMPTY_ROOT

    def to_bytes(self) -> bytes:
        """``"MLPF" || 01 || size (8 bytes, big-endian) || nodes``."""
        return _HEADER.pack(_MAGIC, _VERSION, self.size) + b"".join(self.nodes)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Frontier:
        """Decode `to_bytes`, or ``FormatError``."""
        magic = encoded[: len(_MAGIC)]
        if magic != _MAGIC[: len(magic)]:
            raise UnknownVersionError(f"not a frontier: starts with {magic.hex()}")
        if len(encoded) > len(magic) and encoded[len(magic)] != _VERSION:
            raise UnknownVersionError(f"frontier version {encoded[len(magic)]}, this release has 1")
        if len(encoded) < _HEADER.size:
            raise TruncatedError(f"frontier header has {_HEADER.size} bytes, got {len(encoded)}")
        size: int = _HEADER.unpack_from(encoded)[2]
        if size > MAX_SIZE:
            raise TooLargeError(f"frontier size {size} is beyond {MAX_SIZE}")
        wanted = _HEADER.size + HASH_SIZE * size.bit_count()
        if len(encoded) < wanted:
            raise TruncatedError(f"frontier of size {size} has {wanted} bytes, got {len(encoded)}")
        if len(encoded) > wanted:
            raise TrailingBytesError(
                f"frontier of size {size} has {wanted} bytes, {len(encoded) - wanted} follow it"
            )
        body = encoded[_HEADER.size :]
        nodes = tuple(body[at : at + HASH_SIZE] for at in range(0, len(body), HASH_SIZE))
        return cls(size, nodes)


@dataclass(frozen=True, slots=True)
class Step:
    """One hash of the walk from leaf data to a root: ``SHA-256(prefix || message || suffix)``. The
    prefix is 00 for a leaf, 01 before a right sibling as suffix, else ``01 || left sibling``."""

    prefix: bytes
    suffix: bytes = b""

    def apply(self, message: bytes) -> bytes:
        """SHA-256 of the wrapped message; 32 bytes."""
        return hashlib.sha256(self.prefix + message + self.suffix).digest()


def path_steps(index: int, size: int, proof: Sequence[bytes]) -> tuple[Step, ...]:
    """The walk from leaf *data* to the root, as RFC 9162 section 2.1.3.2 computes it; compare
    ``apply_steps(data, steps)`` with a root that you trust."""
    where = f"inclusion of leaf {index} in a tree of {size}"
    if not 0 < size <= MAX_SIZE:
        raise ProofError(f"{where}: size must be 1 to {MAX_SIZE}")
    if not 0 <= index < size:
        raise ProofError(f"{where}: no such leaf")
    # The levels below the right border, then the index's 1-bits.
    inner = (index ^ (size - 1)).bit_length()
    wanted = inner + (index >> inner).bit_count()
    if len(proof) != wanted:
        raise ProofError(f"{where}: proof has {len(proof)} elements, needs {wanted}")
    _check_sizes(f"{where}: element", proof, ProofError)
    steps = [Step(LEAF_PREFIX)]
    fn, sn = index, size - 1
    for sibling in proof:
        if fn & 1 or fn == sn:
            steps.append(Step(NODE_PREFIX + sibling))
            while not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            steps.append(Step(NODE_PREFIX, sibling))
        fn, sn = fn >> 1, sn >> 1
    return tuple(steps)


def apply_steps(data: bytes, steps: Iterable[Step]) -> bytes:
    """Walk the steps from ``data``; returns the root (``data`` itself for no steps)."""
    return reduce(lambda message, step: step.apply(message), steps, data)


def verify_inclusion(
    leaf_data: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf_data`` is leaf ``index`` of the tree (RFC 9162 section 2.1.3.2)."""
    got = apply_steps(leaf_data, path_steps(index, size, proof))
    _check_root(f"inclusion of leaf {index} in a tree of {size}", "root", got, root)


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the old tree is a prefix of the new one (RFC 9162 section 2.1.4.2). Equal sizes
    take an empty proof and equal roots; ``old_size`` 0 takes an empty proof and the root of the
    empty tree, and then says nothing about ``new_root``."""
    where = f"consistency of size {old_size} with size {new_size}"
    if not 0 <= new_size <= MAX_SIZE:
        raise ProofError(f"{where}: sizes must be 0 to {MAX_SIZE}")
    if not 0 <= old_size <= new_size:
        raise ProofError(f"{where}: old size must be 0 to {new_size}")
    _check_sizes(f"{where}: element", proof, ProofError)
    if old_size == new_size or old_size == 0:
        if proof:
            raise ProofError(f"{where}: proof has {len(proof)} elements, needs 0")
        if old_size == 0:
            _check_root(where, "old root", EMPTY_ROOT, old_root)
        if old_size == new_size:
            _check_root(where, "new root", old_root, new_root)
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # a complete subtree: its root is left out of the proof
        path.insert(0, old_root)
    if not path:
        raise ProofError(f"{where}: proof is empty")
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for element in path[1:]:
        if sn == 0:
            raise ProofError(f"{where}: proof is too long ({len(proof)} elements)")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(element, fr), node_hash(element, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, element)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofError(f"{where}: proof is too short ({len(proof)} elements)")
    _check_root(where, "old root", fr, old_root)
    _check_root(where, "new root", sr, new_root)


def _check_sizes(what: str, hashes: Sequence[bytes], error: type[Exception]) -> None:
    for at, value in enumerate(hashes):
        if len(value) != HASH_SIZE:
            raise error(f"{what} {at} has {len(value)} bytes, needs {HASH_SIZE}")


def _check_root(where: str, name: str, got: bytes, wanted: bytes) -> None:
    if got != wanted:
        raise ProofError(f"{where}: {name} is {wanted.hex()}, but the proof leads to {got.hex()}")
