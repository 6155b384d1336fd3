"""The frontier of a Merkle tree: all that a growing ledger must store to append to it.

WARNING: FROZEN FORMAT. The heads of every ledger keep these bytes. Add a version; never
change what an existing one means. No I/O, no clock, no randomness.

Version 1: ``"MLPF" || 01 || size (8 bytes, big-endian) || nodes (32 bytes each)``. The nodes
are the roots of the complete subtrees, largest first: one for each 1-bit of the size. The
hashes are those of :mod:`provenance.formats.merkle`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from provenance.errors import (
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    MAX_SIZE,
    check_hashes,
    joined,
    leaf_hash,
    node_hash,
)

_MAGIC: Final = b"MLPF"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">4sBQ")


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
        check_hashes(self.nodes)

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
        return joined(self.nodes)

    def to_bytes(self) -> bytes:
        """The bytes of version 1."""
        header = _HEADER.pack(_MAGIC, _VERSION, self.size)
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
