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

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from provenance.errors import (
    FormatError,
    InputError,
    ProofError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.formats import json_text
from provenance.formats.checkpoint import parse_note
from provenance.formats.merkle import verify_inclusion
from provenance.formats.record import Json, Phase, canonical_json

RECEIPT_VERSION: Final = 1
MAX_RECEIPT_BYTES: Final = 8 * 1024 * 1024
STATES: Final = ("confirmed", "final")

_TAG: Final = b"MLP1"
_NUMBER = (int, float)
_NONE = type(None)
_Types = dict[str, tuple[type, ...]]
_TOP: Final[_Types] = {
    "v": (int,),
    "run": (str,),
    "phase": (str,),
    "epoch": (int, _NONE),
    "root": (str,),
    "ledger": (dict,),
    "head": (str,),
    "anchor": (dict,),
    "evidence": (dict,),
}
_LEDGER: Final[_Types] = {"index": (int,), "size": (int,), "root": (str,), "proof": (list,)}
_ANCHOR: Final[_Types] = {
    "network": (str,),
    "state": (str,),
    "transaction_id": (str,),
    "payload": (str,),
    "height": (int, _NONE),
    "block_hash": (str, _NONE),
    "depth": (int,),
    "block_time": (*_NUMBER, _NONE),
    "confirmed_at": _NUMBER,
}


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
        fields: dict[str, object] = {
            "v": RECEIPT_VERSION,
            "run": str(self.run),
            "phase": self.phase.value,
            "epoch": self.epoch,
            "root": self.root.hex(),
            "ledger": {
                "index": self.ledger.index,
                "size": self.ledger.size,
                "root": self.ledger.root.hex(),
                "proof": [element.hex() for element in self.ledger.proof],
            },
            "head": self.head,
            "anchor": {
                "network": self.anchor.network,
                "state": self.anchor.state,
                "transaction_id": self.anchor.transaction_id,
                "payload": self.anchor.payload.hex(),
                "height": self.anchor.height,
                "block_hash": self.anchor.block_hash,
                "depth": self.anchor.depth,
                "block_time": self.anchor.block_time,
                "confirmed_at": self.anchor.confirmed_at,
            },
            "evidence": dict(self.evidence),
        }
        data = canonical_json(fields)
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
        if len(data) > MAX_RECEIPT_BYTES:
            raise TooLargeError(f"receipt of {len(data)} bytes, at most {MAX_RECEIPT_BYTES}")
        try:
            raw: Any = json_text.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"receipt is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise FormatError(f"receipt is a JSON {type(raw).__name__}, expected an object")
        version = raw.get("v")
        if version != RECEIPT_VERSION or isinstance(version, bool):
            raise UnknownVersionError(f"receipt version {version!r}, expected {RECEIPT_VERSION}")
        receipt = _from_fields(raw)
        try:
            canonical = receipt.encode()
        except (InputError, RecursionError) as error:
            raise FormatError(f"receipt: {error}") from error
        if canonical != data:
            raise FormatError("receipt is not in canonical form (RFC 8785)")
        return receipt

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


def _from_fields(raw: dict[str, Any]) -> Receipt:
    _check(raw, _TOP, "")
    ledger, anchor = raw["ledger"], raw["anchor"]
    _check(ledger, _LEDGER, "ledger.")
    _check(anchor, _ANCHOR, "anchor.")
    proof = tuple(_hex(item, 32, f"ledger.proof[{i}]") for i, item in enumerate(ledger["proof"]))
    block_time = anchor["block_time"]
    try:
        run = UUID(raw["run"])
        phase = Phase(raw["phase"])
    except ValueError as error:
        raise FormatError(f"receipt: {error}") from error
    return Receipt(
        run=run,
        phase=phase,
        epoch=raw["epoch"],
        root=_hex(raw["root"], 32, "root"),
        ledger=LedgerProof(
            ledger["index"], ledger["size"], _hex(ledger["root"], 32, "ledger.root"), proof
        ),
        head=raw["head"],
        anchor=AnchorProof(
            network=anchor["network"],
            state=anchor["state"],
            transaction_id=anchor["transaction_id"],
            payload=_hex(anchor["payload"], 36, "anchor.payload"),
            height=anchor["height"],
            block_hash=anchor["block_hash"],
            depth=anchor["depth"],
            block_time=None if block_time is None else float(block_time),
            confirmed_at=float(anchor["confirmed_at"]),
        ),
        evidence=raw["evidence"],
    )


def _check(raw: dict[str, Any], types: _Types, where: str) -> None:
    extra = sorted(raw.keys() - types.keys())
    if extra:
        raise FormatError(f"receipt: unknown field {where + extra[0]!r}")
    for name, expected in types.items():
        if name not in raw:
            raise FormatError(f"receipt: field {where + name!r} is missing")
        if not isinstance(raw[name], expected) or isinstance(raw[name], bool):
            raise FormatError(f"receipt: field {where + name!r} is a {type(raw[name]).__name__}")


def _hex(text: object, size: int, where: str) -> bytes:
    if isinstance(text, str):
        try:
            value = bytes.fromhex(text)
        except ValueError:
            value = b""
        if len(value) == size and value.hex() == text:
            return value
    raise FormatError(f"receipt: {where} must be {2 * size} lower-case hex digits")
