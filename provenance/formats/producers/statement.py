"""Statements: a producer signs how many records it has written, and which.

A producer chains all its records, control records included, in order of ``seq``
(docs/FORMAT.md, section 2.3)::

    c0        = SHA-256("ml-provenance/chain/v1" 00 || run (16) || producer (16))
    c(i+1)    = SHA-256(c(i) || SHA-256 of the record with seq i)
    statement = "ml-provenance/statement/v1" 00 || run (16) || producer (16)
                || count (u64, big-endian) || c(count) (32)
    signature = by the producer's Ed25519 key (RFC 8032), over the statement

A record that was edited, dropped, inserted or moved gives another chain. ``SHA-256(statement)`` is
what stands for the producer under a run root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import FormatError
from provenance.formats.ed25519 import verify_signature

CHAIN_CONTEXT: Final = b"ml-provenance/chain/v1\0"
STATEMENT_CONTEXT: Final = b"ml-provenance/statement/v1\0"
MAX_COUNT: Final = 2**63 - 1


def chain_start(run: UUID, producer: bytes) -> bytes:
    """The chain before the first record, 32 bytes."""
    return hashlib.sha256(CHAIN_CONTEXT + run.bytes + producer).digest()


def chain_on(chain: bytes, digests: Iterable[bytes]) -> bytes:
    """The chain after more records, 32 bytes; ``digests`` are their SHA-256, in order."""
    for digest in digests:
        chain = hashlib.sha256(chain + digest).digest()
    return chain


def statement_bytes(run: UUID, producer: bytes, count: int, chain: bytes) -> bytes:
    """What is signed: a producer's first ``count`` records have this chain; ``FormatError`` for
    what the format cannot hold."""
    if not 0 <= count <= MAX_COUNT or len(producer) != 16 or len(chain) != 32:
        raise FormatError(
            f"statement: count {count}, producer of {len(producer)} bytes, chain of {len(chain)}; "
            f"expected 0 to {MAX_COUNT}, 16 and 32"
        )
    return STATEMENT_CONTEXT + run.bytes + producer + count.to_bytes(8, "big") + chain


def statement_digest(run: UUID, producer: bytes, count: int, chain: bytes) -> bytes:
    """What stands for a producer under a run root: SHA-256 of the statement, 32 bytes."""
    return hashlib.sha256(statement_bytes(run, producer, count, chain)).digest()


@dataclass(frozen=True, slots=True)
class Statement:
    """A producer's (16 bytes) signature (64) over its first ``count`` records; ``chain`` is
    recomputed."""

    producer: bytes
    count: int
    signature: bytes

    def verify(self, run: UUID, chain: bytes, producer_key: bytes) -> None:
        """Check the signature over ``chain``, that of the first ``count`` records;
        ``BadSignatureError`` where these are not the records that the producer signed."""
        message = statement_bytes(run, self.producer, self.count, chain)
        what = f"statement of producer {self.producer.hex()[:8]} over {self.count} records"
        verify_signature(producer_key, self.signature, message, what)


def sign_statement(
    run: UUID, producer: bytes, count: int, chain: bytes, key: Ed25519PrivateKey
) -> Statement:
    """Sign that a producer's first ``count`` records have this chain."""
    signature = key.sign(statement_bytes(run, producer, count, chain))
    return Statement(producer, count, signature)
