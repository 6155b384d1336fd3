"""Acknowledgements: the ledger signs how much of a producer the database has.

docs/FORMAT.md, section 2.3. They travel through Redis, which whoever can write to it could use to
have a spool deleted: so a shipper believes the signature alone. ::

    acknowledgement = count (u64, big-endian) || chain (32) || signature (64)         104 bytes
    signature       = by the ledger's Ed25519 key (RFC 8032), over
                      "ml-provenance/acknowledgement/v1" 00 || run (16) || producer (16)
                      || count (u64, big-endian) || chain (32)

Two producers that are none say something of the run, with 32 zero bytes as chain: count 0 for
:data:`NOBODY`, that it is sealed; for :data:`GATE` count 1, that nothing of it is taken for now,
and 0, that it is again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from provenance.errors import FormatError
from provenance.formats.ed25519 import verify_signature
from provenance.formats.note import SignerKey
from provenance.formats.producers.statement import MAX_COUNT

ACKNOWLEDGEMENT_CONTEXT: Final = b"ml-provenance/acknowledgement/v1\0"
ACKNOWLEDGEMENT_BYTES: Final = 104
NOBODY: Final = bytes(16)
GATE: Final = b"\xff" * 16


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The database has a producer's first ``count`` records, with this chain (32 bytes)."""

    count: int
    chain: bytes


SEALED: Final = Acknowledgement(0, bytes(32))
HELD: Final = Acknowledgement(1, bytes(32))


def sign_acknowledgement(
    run: UUID, producer: bytes, count: int, chain: bytes, key: SignerKey
) -> bytes:
    """The 104 bytes, signed by the ledger's key."""
    body = count.to_bytes(8, "big") + chain
    return body + key.sign(ACKNOWLEDGEMENT_CONTEXT + run.bytes + producer + body)


def sign_sealed(run: UUID, key: SignerKey) -> bytes:
    """What says that a run is sealed; published for :data:`NOBODY`."""
    return sign_acknowledgement(run, NOBODY, SEALED.count, SEALED.chain, key)


def sign_gate(run: UUID, held: bool, key: SignerKey) -> bytes:
    """What says whether a run is held back; published for :data:`GATE`."""
    return sign_acknowledgement(run, GATE, int(held), HELD.chain, key)


def open_acknowledgement(
    data: bytes, run: UUID, producer: bytes, public_key: bytes
) -> Acknowledgement:
    """Read an acknowledgement, or ``FormatError``; ``BadSignatureError`` where another key than the
    ledger's signed it, or for another producer."""
    if len(data) != ACKNOWLEDGEMENT_BYTES:
        raise FormatError(f"acknowledgement of {len(data)} bytes, expected {ACKNOWLEDGEMENT_BYTES}")
    message = ACKNOWLEDGEMENT_CONTEXT + run.bytes + producer + data[:40]
    verify_signature(public_key, data[40:], message, "acknowledgement")
    count = int.from_bytes(data[:8], "big")
    if count > MAX_COUNT:
        raise FormatError(f"acknowledgement of {count} records, at most {MAX_COUNT}")
    return Acknowledgement(count, data[8:40])
