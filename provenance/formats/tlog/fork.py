"""That one key signed two heads which no ledger can have: a proof for strangers.

docs/FORMAT.md, section 10.5: RFC 8785 JSON. It holds where both notes are signed by the key, both
proofs verify, and the two roots differ: an append-only ledger has one root at each size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from provenance.errors import FormatError, ProofError
from provenance.formats.checkpoint import Head, open_head
from provenance.formats.fields import Fields
from provenance.formats.json_text import canonical_json
from provenance.formats.merkle import verify_consistency
from provenance.formats.note import MAX_NOTE_BYTES, VerifierKey

FORK_VERSION: Final = 1
MAX_FORK_BYTES: Final = 3 * MAX_NOTE_BYTES


@dataclass(frozen=True, slots=True)
class ForkSide:
    """A signed head, and its root at a smaller size with the proof of that."""

    note: str
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ForkProof:
    """Two heads of one key that differ at ``size``; a reader compares the key with the one that
    he knows."""

    key: VerifierKey
    size: int
    sides: tuple[ForkSide, ForkSide]

    def verify(self) -> tuple[Head, Head]:
        """The two heads, where this proves that they do not fit; else ``BadSignatureError``,
        ``ProofError`` or ``FormatError``."""
        heads = [open_head(side.note, self.key) for side in self.sides]
        for head, side in zip(heads, self.sides, strict=True):
            if head.origin != self.key.name:
                raise ProofError(f"fork: a head is of ledger {head.origin!r}, not the key's")
            verify_consistency(self.size, side.root, head.size, head.root, side.proof)
        if self.size < 1 or self.sides[0].root == self.sides[1].root:
            raise ProofError(f"fork: the two heads agree at size {self.size}")
        return heads[0], heads[1]

    def encode(self) -> bytes:
        """The proof as a file."""
        sides = [
            {"head": s.note, "root": s.root.hex(), "proof": [each.hex() for each in s.proof]}
            for s in self.sides
        ]
        return canonical_json(
            {"v": FORK_VERSION, "key": self.key.vkey, "size": self.size, "heads": sides}
        )

    @classmethod
    def decode(cls, data: bytes) -> ForkProof:
        """Read the file, or ``FormatError``; nothing is verified but its form."""
        top = Fields.parse_canonical(data, "fork proof", FORK_VERSION, limit=MAX_FORK_BYTES)
        top.only("v", "key", "size", "heads")
        sides = [
            ForkSide(item.text("head"), item.hex("root", 32), item.hashes("proof"))
            for item in top.objects("heads", "head", "root", "proof")
        ]
        if len(sides) != 2:
            raise FormatError(f"fork proof: heads: found {len(sides)}, expected 2")
        key = VerifierKey.from_vkey(top.text("key"))
        return cls(key, top.integer("size", 1), (sides[0], sides[1]))
