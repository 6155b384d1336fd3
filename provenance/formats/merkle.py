"""Merkle trees and proofs over SHA-256, as in RFC 6962 and RFC 9162.

WARNING: FROZEN FORMAT. Every root, proof and frontier that was ever published is
recomputed by this file. A change here makes old evidence unverifiable. Add a version;
never change what an existing one means. No I/O, no clock, no randomness.

::

    MTH([])     = SHA-256("")
    MTH([d])    = SHA-256(00 || d)                            leaf_hash
    MTH(D[0:n]) = SHA-256(01 || MTH(D[0:k]) || MTH(D[k:n]))   node_hash
                  k = the largest power of two smaller than n

Vocabulary: leaf *data* is the entry as it was logged, of any length; a leaf *hash* is
``leaf_hash(data)``, 32 bytes. Functions take leaf data unless their name ends in
``_of_hashes``. Every root, hash and proof element is exactly 32 bytes.

Errors: a function that makes something (``root``, ``inclusion_proof``, ...) raises
``ValueError`` for an index or size that does not exist, since that is the caller's slip;
a function that checks evidence (``verify_*``, ``path_steps``, ``root_from_inclusion``)
raises ``ProofError``, whatever is wrong with the evidence; a decoder raises a
``FormatError``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final, Literal

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
EMPTY_ROOT: Final[bytes] = hashlib.sha256(b"").digest()
"""MTH of no leaves (RFC 9162 section 2.1.1)."""

_FRONTIER_MAGIC: Final = b"MLPF"
_FRONTIER_VERSION: Final = 1
_FRONTIER_HEADER: Final = struct.Struct(">4sBQ")


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(00 || data): the hash of one leaf (RFC 9162 section 2.1.1); 32 bytes."""
    return hashlib.sha256(LEAF_PREFIX + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(01 || left || right): an inner node (RFC 9162 section 2.1.1); 32 bytes."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Merkle Tree Hash over leaf data, in linear time and without recursion."""
    return root_of_hashes([leaf_hash(data) for data in leaves])


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """Merkle Tree Hash over leaf hashes (RFC 9162 section 2.1.1).

    Raises:
        ValueError: a hash is not 32 bytes.
    """
    _check_hashes(hashes)
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Siblings from leaf ``index`` up to the root, lowest first (RFC 9162 section 2.1.3.1).

    Raises:
        ValueError: there is no leaf ``index`` (from 0).
    """
    return inclusion_proof_of_hashes([leaf_hash(data) for data in leaves], index)


def inclusion_proof_of_hashes(hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """`inclusion_proof` over leaf hashes; also ``ValueError`` for one that is not 32 bytes."""
    if not 0 <= index < len(hashes):
        raise ValueError(f"no leaf {index} in a tree of {len(hashes)}")
    _check_hashes(hashes)
    proof: list[bytes] = []
    level = list(hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return tuple(proof)


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """Proof that the first ``old_size`` leaves are a prefix (RFC 9162 section 2.1.4.1).

    ``()`` when the sizes are equal and when ``old_size`` is 0 (an empty tree is a prefix
    of every tree; RFC 9162 leaves that case open).

    Raises:
        ValueError: ``old_size`` is negative or beyond the tree.
    """
    return consistency_proof_of_hashes([leaf_hash(data) for data in leaves], old_size)


def consistency_proof_of_hashes(hashes: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """`consistency_proof` over leaf hashes; also ``ValueError`` for one that is not 32 bytes."""
    if not 0 <= old_size <= len(hashes):
        raise ValueError(f"no prefix of {old_size} in a tree of {len(hashes)}")
    _check_hashes(hashes)
    if old_size == 0:
        return ()
    # SUBPROOF(m, D[low:high], b) of the RFC, walked down; its proof is listed bottom up.
    low, high, whole = 0, len(hashes), True
    proof: list[bytes] = []
    while old_size != high:
        split = low + _largest_power_below(high - low)
        if old_size <= split:
            proof.append(root_of_hashes(hashes[split:high]))
            high = split
        else:
            proof.append(root_of_hashes(hashes[low:split]))
            low, whole = split, False
    if not whole:
        proof.append(root_of_hashes(hashes[low:high]))
    return tuple(reversed(proof))


@dataclass(frozen=True, slots=True)
class Step:
    """One hash of the walk from leaf data to a root: a message is wrapped, then SHA-256.

    ::

        prepend: SHA-256(data || message)          data = 00, or 01 || left sibling
        append:  SHA-256(01 || message || data)    data = right sibling

    So one step is one SHA-256, always ``SHA-256(prefix || message || suffix)``. Where a
    format knows only bare operations (OpenTimestamps, a shell), use ``operations()``.
    """

    op: Literal["prepend", "append"]
    data: bytes

    @property
    def prefix(self) -> bytes:
        """The bytes that go before the message; never empty."""
        return self.data if self.op == "prepend" else NODE_PREFIX

    @property
    def suffix(self) -> bytes:
        """The bytes that go after the message; empty for a prepend."""
        return b"" if self.op == "prepend" else self.data

    def operations(self) -> tuple[tuple[Literal["prepend", "append", "sha256"], bytes], ...]:
        """The step as bare operations, in order; the last is always ``("sha256", b"")``."""
        if self.op == "prepend":
            return (("prepend", self.data), ("sha256", b""))
        return (("prepend", NODE_PREFIX), ("append", self.data), ("sha256", b""))

    def apply(self, message: bytes) -> bytes:
        """SHA-256 of the wrapped message; 32 bytes."""
        return hashlib.sha256(self.prefix + message + self.suffix).digest()


def path_steps(index: int, size: int, proof: Sequence[bytes]) -> tuple[Step, ...]:
    """The walk from leaf *data* to the root, as steps of one SHA-256 each.

    The first step is the leaf hash (prepend 00), the others are the inner nodes that
    RFC 9162 section 2.1.3.2 computes. Nothing is compared here: the caller compares
    ``apply_steps(data, steps)`` with a root that it trusts.

    Raises:
        ProofError: the index or size cannot be, the proof has another length than that
            place in the tree needs, or an element is not 32 bytes.
    """
    where = f"inclusion of leaf {index} in a tree of {size}"
    if not 0 < size <= MAX_SIZE:
        raise ProofError(f"{where}: size must be 1 to {MAX_SIZE}")
    if not 0 <= index < size:
        raise ProofError(f"{where}: no such leaf")
    wanted = _inclusion_length(index, size)
    if len(proof) != wanted:
        raise ProofError(f"{where}: proof has {len(proof)} elements, needs {wanted}")
    _check_elements(where, proof)
    steps = [Step("prepend", LEAF_PREFIX)]
    fn, sn = index, size - 1
    for sibling in proof:
        if fn & 1 or fn == sn:
            steps.append(Step("prepend", NODE_PREFIX + sibling))
            while not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            steps.append(Step("append", sibling))
        fn, sn = fn >> 1, sn >> 1
    return tuple(steps)


def apply_steps(data: bytes, steps: Iterable[Step]) -> bytes:
    """Walk the steps from ``data``; returns the root (``data`` itself for no steps)."""
    return reduce(lambda message, step: step.apply(message), steps, data)


def root_from_inclusion(leaf_data: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to; ``ProofError`` as `path_steps`."""
    return apply_steps(leaf_data, path_steps(index, size, proof))


def verify_inclusion(
    leaf_data: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf_data`` is leaf ``index`` of the tree (RFC 9162 section 2.1.3.2).

    Raises:
        ProofError: it is not, or the proof is malformed; the message names index, size
            and what failed.
    """
    where = f"inclusion of leaf {index} in a tree of {size}"
    got = root_from_inclusion(leaf_data, index, size, proof)
    _check_root(where, "root", got, root)


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the old tree is a prefix of the new one (RFC 9162 section 2.1.4.2).

    Equal sizes take an empty proof and equal roots; ``old_size`` 0 takes an empty proof
    and the root of the empty tree, and then says nothing about ``new_root``.

    Raises:
        ProofError: it is not, or the proof is malformed; the message names both sizes
            and what failed.
    """
    where = f"consistency of size {old_size} with size {new_size}"
    if not 0 <= new_size <= MAX_SIZE:
        raise ProofError(f"{where}: sizes must be 0 to {MAX_SIZE}")
    if not 0 <= old_size <= new_size:
        raise ProofError(f"{where}: old size must be 0 to {new_size}")
    _check_elements(where, proof)
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


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that a growing tree must remember: its size and the roots of its full subtrees.

    A value: ``append`` and ``extend`` return the grown frontier and leave this one as it
    is. At most 63 hashes, whatever the size.

    Args:
        size: Leaves so far.
        nodes: Root of each complete subtree, largest first: one for each 1-bit of ``size``.

    Raises:
        ValueError: the nodes do not fit the size.
    """

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
        _check_hashes(self.nodes)

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
        if not self.nodes:
            return EMPTY_ROOT
        return reduce(lambda right, left: node_hash(left, right), reversed(self.nodes))

    def to_bytes(self) -> bytes:
        """Version 1: ``"MLPF" || 01 || size (8 bytes, big-endian) || nodes (32 bytes each)``."""
        header = _FRONTIER_HEADER.pack(_FRONTIER_MAGIC, _FRONTIER_VERSION, self.size)
        return header + b"".join(self.nodes)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Frontier:
        """Decode `to_bytes`.

        Raises:
            UnknownVersionError: other magic or version.
            TruncatedError: it ends too early.
            TrailingBytesError: it goes on after the last node.
            TooLargeError: a size beyond ``MAX_SIZE``.
        """
        magic = encoded[: len(_FRONTIER_MAGIC)]
        if magic != _FRONTIER_MAGIC[: len(magic)]:
            raise UnknownVersionError(f"not a frontier: starts with {magic.hex()}")
        if len(encoded) > len(magic) and encoded[len(magic)] != _FRONTIER_VERSION:
            raise UnknownVersionError(f"frontier version {encoded[len(magic)]}, this release has 1")
        if len(encoded) < _FRONTIER_HEADER.size:
            raise TruncatedError(
                f"frontier header has {_FRONTIER_HEADER.size} bytes, got {len(encoded)}"
            )
        size: int = _FRONTIER_HEADER.unpack_from(encoded)[2]
        if size > MAX_SIZE:
            raise TooLargeError(f"frontier size {size} is beyond {MAX_SIZE}")
        wanted = _FRONTIER_HEADER.size + HASH_SIZE * size.bit_count()
        if len(encoded) < wanted:
            raise TruncatedError(f"frontier of size {size} has {wanted} bytes, got {len(encoded)}")
        if len(encoded) > wanted:
            raise TrailingBytesError(
                f"frontier of size {size} has {wanted} bytes, {len(encoded) - wanted} follow it"
            )
        body = encoded[_FRONTIER_HEADER.size :]
        nodes = tuple(body[at : at + HASH_SIZE] for at in range(0, len(body), HASH_SIZE))
        return cls(size, nodes)


def _parents(level: list[bytes]) -> list[bytes]:
    """The next level up; an odd last node moves up unchanged, which is the RFC's split."""
    above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        above.append(level[-1])
    return above


def _largest_power_below(count: int) -> int:
    """The largest power of two smaller than ``count`` (at least 2)."""
    return 1 << (count - 1).bit_length() - 1


def _inclusion_length(index: int, size: int) -> int:
    """Elements that leaf ``index`` needs: the levels below the right border, then its 1-bits."""
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


def _check_hashes(hashes: Sequence[bytes]) -> None:
    for at, value in enumerate(hashes):
        if len(value) != HASH_SIZE:
            raise ValueError(f"hash {at} has {len(value)} bytes, needs {HASH_SIZE}")


def _check_elements(where: str, proof: Sequence[bytes]) -> None:
    for at, value in enumerate(proof):
        if len(value) != HASH_SIZE:
            raise ProofError(f"{where}: element {at} has {len(value)} bytes, needs {HASH_SIZE}")


def _check_root(where: str, name: str, got: bytes, wanted: bytes) -> None:
    if got != wanted:
        raise ProofError(f"{where}: {name} is {wanted.hex()}, but the proof leads to {got.hex()}")
