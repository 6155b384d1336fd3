"""Batches: what travels in a stream entry.

FROZEN FORMAT. Pure: no I/O, no clock, no randomness.

Batch, one stream entry, signed with the run's Ed25519 key (RFC 8032)::

    b"MLPB" version(u8 = 1) signature(64) public_key(32) body
    body = msgpack [run(16 bytes), producer(16 bytes), rank, first_seq, [record bytes, ...]]

The signature is over ``b"ml-provenance/batch/v1\0" || body``. Records are those of
consecutive events: the record at index ``i`` has ``seq = first_seq + i``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from provenance.errors import (
    BadSignatureError,
    FormatError,
    TooLargeError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.event import check_length, pack, read_array

BATCH_MAGIC = b"MLPB"
BATCH_VERSION = 1
BATCH_CONTEXT = b"ml-provenance/batch/v1\0"
MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_BATCH_RECORDS = 4096
_BATCH_PREFIX = len(BATCH_MAGIC) + 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of consecutive events of one producer, and the key that signed them.

    ``records`` are canonical bytes, not yet decoded: see :meth:`Record.decode`.
    """

    run: UUID
    producer: bytes
    rank: int
    first_seq: int
    records: tuple[bytes, ...]
    public_key: bytes


def sign_batch(
    run: UUID,
    producer: bytes,
    rank: int,
    first_seq: int,
    records: Sequence[bytes],
    key: Ed25519PrivateKey,
) -> bytes:
    """Encode and sign a batch.

    Raises:
        TooLargeError: More than 4096 records or 16 MiB.
    """
    if not 0 < len(records) <= MAX_BATCH_RECORDS:
        raise TooLargeError(f"batch of {len(records)} records, expected 1 to {MAX_BATCH_RECORDS}")
    body = pack([run.bytes, producer, rank, first_seq, list(records)])
    if len(body) > MAX_BATCH_BYTES:
        raise TooLargeError(f"batch of {len(body)} bytes, at most {MAX_BATCH_BYTES}")
    public = key.public_key().public_bytes_raw()
    signature = key.sign(BATCH_CONTEXT + body)
    return BATCH_MAGIC + bytes([BATCH_VERSION]) + signature + public + body


def open_batch(data: bytes) -> Batch:
    """Decode a batch and verify its signature against the key it names.

    Whether that key is the run's key is for the caller to decide.

    Raises:
        TruncatedError, TrailingBytesError, TooLargeError, UnknownVersionError, FormatError:
            The bytes are not a batch.
        BadSignatureError: The signature does not fit.
    """
    size = len(data) - _BATCH_PREFIX - 96
    if size > MAX_BATCH_BYTES:
        raise TooLargeError(f"batch of {size} bytes, at most {MAX_BATCH_BYTES}")
    if len(data) < _BATCH_PREFIX + 96:
        raise TruncatedError(f"batch of {len(data)} bytes, expected a header of 101")
    if data[:4] != BATCH_MAGIC:
        raise UnknownVersionError(f"batch magic {data[:4].hex()}, expected 4d4c5042")
    if data[4] != BATCH_VERSION:
        raise UnknownVersionError(f"batch version {data[4]}, expected {BATCH_VERSION}")
    signature = data[_BATCH_PREFIX : _BATCH_PREFIX + 64]
    public = data[_BATCH_PREFIX + 64 : _BATCH_PREFIX + 96]
    body = data[_BATCH_PREFIX + 96 :]
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, BATCH_CONTEXT + body)
    except (InvalidSignature, ValueError) as error:
        raise BadSignatureError(f"batch signature does not fit key {public.hex()[:16]}") from error
    run, producer, rank, first_seq, records = read_array(
        body, "batch", (bytes, bytes, int, int, list)
    )
    check_length(run, 16, "run")
    check_length(producer, 16, "producer")
    if not 0 < len(records) <= MAX_BATCH_RECORDS:
        raise TooLargeError(f"batch of {len(records)} records, expected 1 to {MAX_BATCH_RECORDS}")
    if not all(isinstance(record, bytes) for record in records):
        raise FormatError("batch: a record is not bytes")
    return Batch(UUID(bytes=run), producer, rank, first_seq, tuple(records), public)
