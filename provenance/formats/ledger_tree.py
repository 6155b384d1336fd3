"""The former name of :class:`provenance.formats.merkle.MerkleTree`."""

from provenance.formats.merkle import MerkleTree as LedgerTree

__all__ = ["LedgerTree"]
