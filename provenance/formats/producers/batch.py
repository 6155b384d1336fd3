"""Batches, which travel in a stream entry, and what is left of one without its records.

docs/FORMAT.md, section 2.2 ::

    batch = b"MLPB" version(u8 = 1) msgpack [
        certificate (164 bytes), identity (at most 16 KiB) or nil, first_seq,
        chain before the first record (32 bytes), [record bytes, ...], signature (64 bytes)]
    signed range = msgpack [
        first_seq, chain before the first record (32 bytes), digests (32 bytes each), signature]

Records are those of consecutive events of one producer: the record at index ``i`` has
``seq = first_seq + i``. The signature is the producer's, over its statement of ``first_seq``
plus that many records (:mod:`~provenance.formats.producers.statement`). So it covers all records
up to the last of the batch, and where one batch ends and the next begins carries no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import FormatError, TooLargeError, TrailingBytesError, TruncatedError
from provenance.formats.event import check_length, check_prefix, pack, read_array
from provenance.formats.producers.certificate import Certificate, Identity, open_identity
from provenance.formats.producers.statement import MAX_COUNT, Statement, chain_on, sign_statement
from provenance.formats.record import record_digest

BATCH_MAGIC: Final = b"MLPB"
BATCH_VERSION: Final = 1
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
"""Of the msgpack body."""
MAX_BATCH_RECORDS: Final = 4096
RUN_AT: Final = slice(8, 24)
"""Where a batch names its run: the first field of its certificate."""
MAX_RANGE_BYTES: Final = 32 * MAX_BATCH_RECORDS + 256
_PREFIX: Final = len(BATCH_MAGIC) + 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of consecutive events of one producer, which signed them.

    Attributes:
        identity: Who signed the run's first statement; None if nobody, or not said here.
        identity_bytes: Its bytes as they came; None if absent.
        before, chain: The chain before the first record, and behind the last; 32 bytes.
        records: Canonical bytes, not yet decoded.
        digests: SHA-256 of each.
        statement: The producer's, over all its records up to the last of these.
    """

    certificate: Certificate
    identity: Identity | None
    identity_bytes: bytes | None
    first_seq: int
    before: bytes
    records: tuple[bytes, ...]
    digests: tuple[bytes, ...]
    statement: Statement
    chain: bytes


def sign_batch(
    certificate: Certificate,
    key: Ed25519PrivateKey,
    first_seq: int,
    before: bytes,
    records: Sequence[bytes],
    identity: bytes | None = None,
) -> bytes:
    """Encode a batch and sign its statement with the producer's key; ``TooLargeError`` over 4096
    records or 16 MiB. ``before`` is the chain before the first record."""
    if not 0 < len(records) <= MAX_BATCH_RECORDS:
        raise TooLargeError(f"batch of {len(records)} records, expected 1 to {MAX_BATCH_RECORDS}")
    chain = chain_on(before, map(record_digest, records))
    count = first_seq + len(records)
    statement = sign_statement(certificate.run, certificate.producer, count, chain, key)
    body = pack(
        [certificate.encode(), identity, first_seq, before, list(records), statement.signature]
    )
    if len(body) > MAX_BATCH_BYTES:
        raise TooLargeError(f"batch of {len(body)} bytes, at most {MAX_BATCH_BYTES}")
    return BATCH_MAGIC + bytes([BATCH_VERSION]) + body


def batch_run(data: bytes) -> bytes:
    """The 16 bytes at which a batch names its run; nothing is checked."""
    return data[RUN_AT]


def open_batch(data: bytes) -> Batch:
    """Decode a batch, or ``FormatError``, and verify all its signatures, the run id against the
    run's key too; ``BadSignatureError`` for that of the certificate, the identity or the
    statement."""
    size = len(data) - _PREFIX
    if size > MAX_BATCH_BYTES:
        raise TooLargeError(f"batch of {size} bytes, at most {MAX_BATCH_BYTES}")
    check_prefix(data, BATCH_MAGIC, BATCH_VERSION, "batch")
    unpacked = _unpack(data[_PREFIX:])
    certificate_bytes, identity_bytes, first_seq, before, records, signature = unpacked
    check_length(before, 32, "chain")
    check_length(signature, 64, "signature")
    if not 0 <= first_seq <= MAX_COUNT - len(records):
        raise FormatError(f"batch: first seq {first_seq}, expected 0 to {MAX_COUNT}")
    certificate = Certificate.decode(certificate_bytes)
    run, producer = certificate.run, certificate.producer
    identity = None
    if identity_bytes is not None:
        identity = open_identity(identity_bytes, run, certificate.run_key)
    digests = tuple(map(record_digest, records))
    chain = chain_on(before, digests)
    statement = Statement(producer, first_seq + len(records), signature)
    statement.verify(run, chain, certificate.producer_key)
    return Batch(
        certificate, identity, identity_bytes, first_seq, before, records, digests, statement, chain
    )


def _unpack(body: bytes) -> tuple[bytes, bytes | None, int, bytes, tuple[bytes, ...], bytes]:
    """The six fields, read one by one: nothing is unpacked that is not in its place, so that no
    array or map can take more memory than it has bytes."""
    none = dict.fromkeys(("max_array_len", "max_map_len", "max_ext_len", "max_str_len"), 0)
    unpacker = msgpack.Unpacker(max_buffer_size=MAX_BATCH_BYTES, **none)
    unpacker.feed(body)

    def read(*types: type) -> Any:
        value = unpacker.unpack()
        if type(value) not in types:
            raise FormatError(f"batch: found {type(value).__name__}, expected {types[0].__name__}")
        return value

    try:
        fields = unpacker.read_array_header()
        if fields != 6:
            raise FormatError(f"batch: an array of {fields}, expected 6")
        certificate, identity = read(bytes), read(bytes, type(None))
        first_seq, before = read(int), read(bytes)
        count = unpacker.read_array_header()
        if not 0 < count <= MAX_BATCH_RECORDS:
            raise TooLargeError(f"batch of {count} records, expected 1 to {MAX_BATCH_RECORDS}")
        records = tuple(read(bytes) for _ in range(count))
        signature = read(bytes)
    except msgpack.OutOfData as error:
        raise TruncatedError("batch: ends before its last field") from error
    except ValueError as error:
        reason = str(error) or type(error).__name__
        raise FormatError(f"batch: not msgpack of a batch: {reason}") from error
    if unpacker.tell() != len(body):
        raise TrailingBytesError("batch: bytes after the end")
    return certificate, identity, first_seq, before, records, signature


@dataclass(frozen=True, slots=True)
class SignedRange:
    """That a producer signed a second value for one of its events: digests of consecutive
    records (32 bytes each, 1 to 4096), the chain before them, and a signature."""

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
        """Read what :meth:`encode` writes, or ``FormatError``; the signature is not checked."""
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
        """``BadSignatureError`` where the producer did not sign these digests."""
        statement = Statement(producer, self.first_seq + len(self.digests), self.signature)
        statement.verify(run, chain_on(self.before, self.digests), producer_key)
