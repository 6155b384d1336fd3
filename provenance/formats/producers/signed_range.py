"""Signed ranges: that a producer signed a second value for one of its events.

FROZEN FORMAT. Pure: no I/O, no clock, no randomness.

What is left of a batch when its records are taken away, as msgpack::

    [first_seq, chain before the first record (32 bytes), digests (32 bytes each), signature (64)]

The signature is that of the batch: the producer's, over its statement of ``first_seq`` plus the
number of digests (:mod:`~provenance.formats.producers.statement`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from provenance.errors import FormatError, TooLargeError
from provenance.formats.event import check_length, pack, read_array
from provenance.formats.producers.batch import MAX_BATCH_RECORDS, Batch
from provenance.formats.producers.statement import MAX_COUNT, Statement, chain_on

MAX_RANGE_BYTES: Final = 32 * MAX_BATCH_RECORDS + 256


@dataclass(frozen=True, slots=True)
class SignedRange:
    """Digests of consecutive records, from ``first_seq``, under a producer's signature.

    Attributes:
        before: Chain before the first record, 32 bytes.
        digests: 32 bytes each, 1 to 4096.
        signature: 64 bytes.
    """

    first_seq: int
    before: bytes
    digests: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def of(cls, batch: Batch) -> SignedRange:
        """The range that a batch signs."""
        return cls(batch.first_seq, batch.before, batch.digests, batch.statement.signature)

    def encode(self) -> bytes:
        """The msgpack bytes."""
        return pack([self.first_seq, self.before, b"".join(self.digests), self.signature])

    @classmethod
    def decode(cls, data: bytes) -> SignedRange:
        """Read a range; its signature is not checked yet.

        Raises:
            FormatError, TooLargeError: Not what :meth:`encode` writes.
        """
        if len(data) > MAX_RANGE_BYTES:
            raise TooLargeError(f"signed range of {len(data)} bytes, at most {MAX_RANGE_BYTES}")
        first_seq, before, joined, signature = read_array(
            data, "signed range", (int, bytes, bytes, bytes)
        )
        check_length(before, 32, "chain")
        check_length(signature, 64, "signature")
        count, rest = divmod(len(joined), 32)
        if rest or not 0 < count <= MAX_BATCH_RECORDS or not 0 <= first_seq <= MAX_COUNT - count:
            raise FormatError(f"signed range: {len(joined)} bytes of digests from seq {first_seq}")
        digests = tuple(joined[at : at + 32] for at in range(0, len(joined), 32))
        return cls(first_seq, before, digests, signature)

    def digest_of(self, seq: int) -> bytes | None:
        """The digest that the range has for an event; None where it is not in the range."""
        at = seq - self.first_seq
        return self.digests[at] if 0 <= at < len(self.digests) else None

    def verify(self, run: UUID, producer: bytes, producer_key: bytes) -> None:
        """Check the signature.

        Raises:
            BadSignatureError: The producer did not sign these digests.
        """
        statement = Statement(producer, self.first_seq + len(self.digests), self.signature)
        statement.verify(run, chain_on(self.before, self.digests), producer_key)
