"""Batches: what travels in a stream entry.

FROZEN FORMAT. Pure: no I/O, no clock, no randomness. ::

    batch = b"MLPB" version(u8 = 1) msgpack [
        certificate (164 bytes), identity (at most 16 KiB) or nil, first_seq,
        chain before the first record (32 bytes), [record bytes, ...], signature (64 bytes)]

Records are those of consecutive events of one producer: the record at index ``i`` has
``seq = first_seq + i``. The signature is the producer's, over its statement of ``first_seq``
plus that many records (:mod:`~provenance.formats.producers.statement`). So it covers all records
up to the last of the batch, and where one batch ends and the next begins carries no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import (
    FormatError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.event import check_length, pack
from provenance.formats.producers.certificate import Certificate, Identity, open_identity
from provenance.formats.producers.statement import (
    MAX_COUNT,
    Statement,
    chain_on,
    sign_statement,
)
from provenance.formats.record import record_digest

BATCH_MAGIC: Final = b"MLPB"
BATCH_VERSION: Final = 1
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
"""Of the msgpack body."""
MAX_BATCH_RECORDS: Final = 4096
RUN_AT: Final = slice(8, 24)
"""Where a batch names its run: the first field of its certificate."""
_PREFIX: Final = len(BATCH_MAGIC) + 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of consecutive events of one producer, which signed them.

    Attributes:
        identity: Who signed the run's first statement; None if nobody, or not said here.
        identity_bytes: Its bytes as they came; None if absent.
        before: Chain before the first record, 32 bytes.
        records: Canonical bytes, not yet decoded: see :meth:`Record.decode`.
        digests: SHA-256 of each.
        statement: The producer's, over all its records up to the last of these.
        chain: That the statement signs, 32 bytes.
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
    """Encode a batch and sign its statement.

    Args:
        key: The producer's private key, which ``certificate`` names.
        before: The chain before the first record, 32 bytes.
        identity: As :func:`~provenance.formats.producers.certificate.sign_identity` makes it.

    Raises:
        TooLargeError: More than 4096 records or 16 MiB.
    """
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
    """Decode a batch and verify all its signatures, the run id against the run's key too.

    Raises:
        TruncatedError, TrailingBytesError, TooLargeError, UnknownVersionError, FormatError:
            The bytes are not a batch.
        BadSignatureError: A signature does not fit: of the certificate, the identity or the
            statement.
    """
    size = len(data) - _PREFIX
    if size > MAX_BATCH_BYTES:
        raise TooLargeError(f"batch of {size} bytes, at most {MAX_BATCH_BYTES}")
    if size < 0:
        raise TruncatedError(f"batch of {len(data)} bytes, expected at least {_PREFIX}")
    if data[:4] != BATCH_MAGIC:
        raise UnknownVersionError(f"batch magic {data[:4].hex()}, expected 4d4c5042")
    if data[4] != BATCH_VERSION:
        raise UnknownVersionError(f"batch version {data[4]}, expected {BATCH_VERSION}")
    certificate_bytes, identity_bytes, first_seq, before, records, signature = _unpack(
        data[_PREFIX:]
    )
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
        certificate=certificate,
        identity=identity,
        identity_bytes=identity_bytes,
        first_seq=first_seq,
        before=before,
        records=tuple(records),
        digests=digests,
        statement=statement,
        chain=chain,
    )


def _unpack(body: bytes) -> tuple[bytes, bytes | None, int, bytes, list[bytes], bytes]:
    """The six fields, read one by one: nothing is unpacked that is not in its place, so that no
    array or map can take more memory than it has bytes."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=MAX_BATCH_BYTES,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
        max_str_len=0,
    )
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
        records = [read(bytes) for _ in range(count)]
        signature = read(bytes)
    except msgpack.OutOfData as error:
        raise TruncatedError("batch: ends before its last field") from error
    except ValueError as error:
        raise FormatError(
            f"batch: not msgpack of a batch: {error or type(error).__name__}"
        ) from error
    if unpacker.tell() != len(body):
        raise TrailingBytesError("batch: bytes after the end")
    return certificate, identity, first_seq, before, records, signature
