"""Receipts: the evidence that one run root is under one anchored head on one network.

WARNING: FROZEN FORMAT. An auditor must be able to read these bytes in ten years: nothing
here does I/O, reads a clock or draws randomness, and a change of meaning needs a new ``v``.

A receipt is the RFC 8785 (JSON Canonicalization Scheme) serialisation of::

    {"v": 1,
     "run": UUID, "phase": "before"|"checkpoint"|"after", "epoch": int|null,
     "root": 64 hex,                                 the run root: leaf data of the ledger
     "ledger": {"index": int, "size": int, "root": 64 hex, "proof": [64 hex, ...]},
     "head": str,                                    signed note (provenance.formats.checkpoint)
     "anchor": {"network": str, "state": "confirmed"|"final",
                "transaction_id": str, "payload": 72 hex,
                "height": int|null, "block_hash": str|null, "depth": int,
                "block_time": number|null, "confirmed_at": number},
     "evidence": {...}}                              what the network adds: headers, proofs

``payload`` is what the chain carries: the tag ``MLP1`` and the 32-byte ledger root. Times
are seconds since the Unix epoch; ``depth`` counts the block itself. ``proof`` is the
inclusion proof of RFC 9162 section 2.1.3.1, lowest sibling first.

:meth:`Receipt.verify_inclusion` walks from the run root to the payload, as far as a
receipt reaches without a key or a node:

1. the run root is entry ``index`` of the ledger of ``size`` entries with ``ledger.root``;
2. the head states that size and that root (its signature is for ``heads.open_head``);
3. the payload is the tag and that root (that the chain has it is for ``evidence``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from provenance.errors import InputError, ProofError, TooLargeError
from provenance.formats.checkpoint import parse_note
from provenance.formats.fields import Fields, as_json
from provenance.formats.json_text import canonical_json
from provenance.formats.merkle import verify_inclusion
from provenance.formats.record import Json, Phase

RECEIPT_VERSION: Final = 1
MAX_RECEIPT_BYTES: Final = 8 * 1024 * 1024
STATES: Final = ("confirmed", "final")

_TAG: Final = b"MLP1"
_ANCHOR_FIELDS: Final = (
    *("network", "state", "transaction_id", "payload"),
    *("height", "block_hash", "depth", "block_time", "confirmed_at"),
)


@dataclass(frozen=True, slots=True)
class LedgerProof:
    """Where the run root lies in the ledger: entry ``index`` of ``size``; 32-byte hashes."""

    index: int
    size: int
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AnchorProof:
    """Where the ledger root lies on the network; ``payload`` is 36 bytes.

    ``state`` is ``confirmed`` (may still be taken back) or ``final``. Times in Unix seconds.
    """

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
        """Canonical bytes.

        Raises:
            InputError: A value without a canonical form, or a state that is not one.
            TooLargeError: Over 8 MiB.
        """
        if self.anchor.state not in STATES:
            raise InputError(f"receipt: state {self.anchor.state!r}, expected one of {STATES}")
        data = canonical_json({"v": RECEIPT_VERSION, **as_json(self)})
        if len(data) > MAX_RECEIPT_BYTES:
            raise TooLargeError(f"receipt of {len(data)} bytes, at most {MAX_RECEIPT_BYTES}")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Read canonical bytes; nothing is verified but their form.

        Raises:
            TooLargeError: Over 8 MiB.
            UnknownVersionError: ``v`` is not 1.
            FormatError: Not JSON, a field missing, unknown or of the wrong type (the message
                gives its path), or not in canonical form.
        """
        top = Fields.parse_canonical(data, "receipt", RECEIPT_VERSION, limit=MAX_RECEIPT_BYTES)
        top.only("v", *(field.name for field in dataclasses.fields(cls)))
        ledger = top.object("ledger", "index", "size", "root", "proof")
        anchor = top.object("anchor", *_ANCHOR_FIELDS)
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
        """Walk from the run root to the payload; the steps are numbered in the module.

        Raises:
            ProofError: A step that does not hold; the message names it.
            FormatError: The head is not a signed note.
        """
        ledger = self.ledger
        # (1)
        verify_inclusion(self.root, ledger.index, ledger.size, ledger.proof, ledger.root)
        # (2)
        head = parse_note(self.head).head
        if (head.size, head.root) != (ledger.size, ledger.root):
            raise ProofError(
                f"receipt: the head states size {head.size} and root {head.root.hex()}, "
                f"the proof leads to size {ledger.size} and root {ledger.root.hex()}"
            )
        # (3)
        if self.anchor.payload != _TAG + ledger.root:
            raise ProofError(
                f"receipt: the payload is {self.anchor.payload.hex()}, "
                f"expected {(_TAG + ledger.root).hex()}"
            )
