"""Receipts: the evidence that one run root is under one anchored head on one network.

docs/FORMAT.md, section 8.2: RFC 8785 (JSON Canonicalization Scheme) of a :class:`Receipt` and
``"v": 1``. Times are seconds since the Unix epoch; ``depth`` counts the block itself; ``proof`` is
the inclusion proof of RFC 9162 section 2.1.3.1, lowest sibling first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from provenance.errors import InputError, ProofError, TooLargeError
from provenance.formats.checkpoint import parse_note
from provenance.formats.fields import Fields, as_json, names_of
from provenance.formats.json_text import canonical_json
from provenance.formats.merkle import verify_inclusion
from provenance.formats.record import Json, Phase

RECEIPT_VERSION: Final = 1
MAX_RECEIPT_BYTES: Final = 8 * 1024 * 1024
STATES: Final = ("confirmed", "final")

_TAG: Final = b"MLP1"


@dataclass(frozen=True, slots=True)
class LedgerProof:
    """Where the run root lies in the ledger: entry ``index`` of ``size``; 32-byte hashes."""

    index: int
    size: int
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AnchorProof:
    """Where the ledger root lies on the network: ``payload`` is the tag ``MLP1`` and that root,
    ``state`` is ``confirmed`` (may still be taken back) or ``final``."""

    network: str
    state: str
    transaction_id: str
    payload: bytes
    height: int | None
    block_hash: str | None
    depth: int
    block_time: float | None
    confirmed_at: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """One run root under one anchored head; ``root`` is 32 bytes, ``head`` a signed note."""

    run: UUID
    phase: Phase
    epoch: int | None
    root: bytes
    ledger: LedgerProof
    head: str
    anchor: AnchorProof
    evidence: Mapping[str, Json] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Canonical bytes; ``TooLargeError`` over 8 MiB, ``InputError`` for what has none."""
        if self.anchor.state not in STATES:
            raise InputError(f"receipt: state {self.anchor.state!r}, expected one of {STATES}")
        data = canonical_json({"v": RECEIPT_VERSION, **as_json(self)})
        if len(data) > MAX_RECEIPT_BYTES:
            raise TooLargeError(f"receipt of {len(data)} bytes, at most {MAX_RECEIPT_BYTES}")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Read canonical bytes, or ``FormatError`` with the path of a field; only their form is
        verified."""
        top = Fields.parse_canonical(data, "receipt", RECEIPT_VERSION, limit=MAX_RECEIPT_BYTES)
        top.only("v", *names_of(cls))
        ledger = top.object("ledger", *names_of(LedgerProof))
        anchor = top.object("anchor", *names_of(AnchorProof))
        return cls(
            run=top.uuid("run"),
            phase=top.enum("phase", Phase),
            epoch=top.maybe("epoch", top.integer),
            root=top.hex("root", 32),
            ledger=LedgerProof(
                index=ledger.integer("index"),
                size=ledger.integer("size"),
                root=ledger.hex("root", 32),
                proof=ledger.hashes("proof"),
            ),
            head=top.text("head"),
            anchor=AnchorProof(
                network=anchor.text("network"),
                state=anchor.one_of("state", STATES),
                transaction_id=anchor.text("transaction_id"),
                payload=anchor.hex("payload", 36),
                height=anchor.maybe("height", anchor.integer),
                block_hash=anchor.maybe("block_hash", anchor.text),
                depth=anchor.integer("depth"),
                block_time=anchor.maybe("block_time", anchor.number),
                confirmed_at=anchor.number("confirmed_at"),
            ),
            evidence=top.object("evidence").raw,
        )

    def verify_inclusion(self) -> None:
        """Walk from the run root to the payload, as far as it goes without a key or a node: the
        root is an entry of the ledger, the head states that ledger, the payload is the tag and its
        root. ``ProofError`` names a step that does not hold; ``FormatError`` where the head is no
        note."""
        ledger = self.ledger
        verify_inclusion(self.root, ledger.index, ledger.size, ledger.proof, ledger.root)
        head = parse_note(self.head).head
        if (head.size, head.root) != (ledger.size, ledger.root):
            raise ProofError(
                f"receipt: the head states size {head.size} and root {head.root.hex()}, "
                f"the proof leads to size {ledger.size} and root {ledger.root.hex()}"
            )
        payload, expected = self.anchor.payload, _TAG + ledger.root
        if payload != expected:
            raise ProofError(f"receipt: the payload is {payload.hex()}, expected {expected.hex()}")
