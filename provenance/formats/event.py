"""Events and batches: what lies in a spool segment and what travels in a stream entry.

FROZEN FORMAT. Pure: no I/O, no clock, no randomness.

Spool segment::

    b"MLPS" version(u8 = 1) frame(header) frame(event) frame(event) ...

A frame is ``length(u32) crc32(u32) payload``, little-endian, the CRC-32 of the
payload as in RFC 1952. The header payload is the msgpack array ``[run(16 bytes),
producer(16 bytes), rank, world_size, first_seq]``; an event payload is the msgpack
array ``[seq, kind, epoch, rank, ts_ns, fields]``.

Batch, one stream entry, signed with the run's Ed25519 key (RFC 8032)::

    b"MLPB" version(u8 = 1) signature(64) public_key(32) body
    body = msgpack [run(16 bytes), producer(16 bytes), rank, first_seq, [record bytes, ...]]

The signature is over ``b"ml-provenance/batch/v1\\0" || body``. Records are those of
consecutive events: the record at index ``i`` has ``seq = first_seq + i``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from provenance.formats.record import Kind, Record, normalise, salt_for, timestamp
from provenance.errors import (
    BadSignatureError,
    ChecksumError,
    FormatError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)

SEGMENT_MAGIC = b"MLPS"
SEGMENT_VERSION = 1
BATCH_MAGIC = b"MLPB"
BATCH_VERSION = 1
BATCH_CONTEXT = b"ml-provenance/batch/v1\0"
FRAME_HEADER = struct.Struct("<II")
MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_BATCH_RECORDS = 4096
_BATCH_PREFIX = len(BATCH_MAGIC) + 1


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Names the run and the producer of a spool segment."""

    run: UUID
    producer: bytes
    rank: int
    world_size: int
    first_seq: int

    def encode(self) -> bytes:
        """Magic, version and one frame."""
        payload = _pack([self.run.bytes, self.producer, self.rank, self.world_size, self.first_seq])
        return SEGMENT_MAGIC + bytes([SEGMENT_VERSION]) + frame(payload)

    @classmethod
    def decode(cls, data: bytes) -> tuple[SegmentHeader, int]:
        """The header and the offset of the first event frame.

        Raises:
            TruncatedError, ChecksumError, UnknownVersionError, FormatError
        """
        start = len(SEGMENT_MAGIC) + 1
        if len(data) < start:
            raise TruncatedError(f"segment of {len(data)} bytes, expected a header")
        if data[: len(SEGMENT_MAGIC)] != SEGMENT_MAGIC:
            raise UnknownVersionError(f"segment magic {bytes(data[:4]).hex()}, expected 4d4c5053")
        if data[start - 1] != SEGMENT_VERSION:
            raise UnknownVersionError(f"segment version {data[start - 1]}, expected 1")
        payload, end = read_frame(data, start)
        run, producer, rank, world_size, first_seq = _array(
            payload, "segment header", (bytes, bytes, int, int, int)
        )
        _length(run, 16, "run")
        _length(producer, 16, "producer")
        return cls(UUID(bytes=run), producer, rank, world_size, first_seq), end


@dataclass(frozen=True, slots=True)
class Event:
    """What the trainer writes. ``ts_ns``: Unix time in nanoseconds."""

    seq: int
    kind: Kind
    epoch: int | None
    rank: int
    ts_ns: int
    fields: dict[str, Any]

    def encode(self) -> bytes:
        """The msgpack payload, without its frame."""
        return _pack([self.seq, self.kind.value, self.epoch, self.rank, self.ts_ns, self.fields])

    @classmethod
    def decode(cls, payload: bytes) -> Event:
        """Read a payload.

        Raises:
            FormatError: Not the six-field array, or an unknown kind.
        """
        seq, kind, epoch, rank, ts_ns, fields = _array(
            payload, "event", (int, str, (int, type(None)), int, int, dict)
        )
        try:
            return cls(seq, Kind(kind), epoch, rank, ts_ns, fields)
        except ValueError as error:
            raise FormatError(f"event: unknown kind {kind!r}") from error


def frame(payload: bytes) -> bytes:
    """``length crc32 payload``.

    Raises:
        TooLargeError: Over 8 MiB.
    """
    if len(payload) > MAX_FRAME_BYTES:
        raise TooLargeError(f"event of {len(payload)} bytes, at most {MAX_FRAME_BYTES}")
    return FRAME_HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read_frame(data: bytes | memoryview, offset: int) -> tuple[bytes, int]:
    """The payload of the frame at ``offset`` and the offset behind it.

    Raises:
        TruncatedError: The data ends inside the frame.
        TooLargeError: A length over 8 MiB.
        ChecksumError: The payload does not fit its CRC-32, or the length is zero.
    """
    if offset + FRAME_HEADER.size > len(data):
        raise TruncatedError(f"frame header at byte {offset} is cut off")
    length, crc = FRAME_HEADER.unpack_from(data, offset)
    if length > MAX_FRAME_BYTES:
        raise TooLargeError(f"frame of {length} bytes at byte {offset}, at most {MAX_FRAME_BYTES}")
    start = offset + FRAME_HEADER.size
    end = start + length
    if end > len(data):
        found = len(data) - start
        raise TruncatedError(f"frame at byte {offset} needs {length} bytes, found {found}")
    payload = bytes(data[start:end])
    if not length or zlib.crc32(payload) != crc:
        raise ChecksumError(f"frame at byte {offset} does not fit its checksum")
    return payload, end


def record_of(event: Event, header: SegmentHeader, salt_key: bytes) -> Record:
    """The record of an event: deterministic, so that shipping twice gives the same bytes.

    Raises:
        InputError: A field without a JSON form.
    """
    body = normalise(event.fields)
    assert isinstance(body, dict)
    return Record(
        run=header.run,
        kind=event.kind,
        epoch=event.epoch,
        rank=event.rank,
        producer=header.producer,
        seq=event.seq,
        ts=timestamp(event.ts_ns),
        salt=salt_for(salt_key, header.producer, event.seq),
        body=body,
    )


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
    body = _pack([run.bytes, producer, rank, first_seq, list(records)])
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
    run, producer, rank, first_seq, records = _array(body, "batch", (bytes, bytes, int, int, list))
    _length(run, 16, "run")
    _length(producer, 16, "producer")
    if not 0 < len(records) <= MAX_BATCH_RECORDS:
        raise TooLargeError(f"batch of {len(records)} records, expected 1 to {MAX_BATCH_RECORDS}")
    if not all(isinstance(record, bytes) for record in records):
        raise FormatError("batch: a record is not bytes")
    return Batch(UUID(bytes=run), producer, rank, first_seq, tuple(records), public)


def _pack(value: object) -> bytes:
    packed = msgpack.packb(value, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def _array(payload: bytes, what: str, types: tuple[Any, ...]) -> list[Any]:
    try:
        value = msgpack.unpackb(payload, raw=False, strict_map_key=False)
    except msgpack.ExtraData as error:
        raise TrailingBytesError(f"{what}: bytes after the end") from error
    except msgpack.StackError as error:
        raise TooLargeError(f"{what}: nested too deep") from error
    except ValueError as error:
        reason = str(error) or type(error).__name__
        kind = TruncatedError if "incomplete" in reason else FormatError
        raise kind(f"{what}: not msgpack: {reason}") from error
    if not isinstance(value, list) or len(value) != len(types):
        raise FormatError(f"{what}: expected an array of {len(types)}")
    for index, (item, expected) in enumerate(zip(value, types, strict=True)):
        if not isinstance(item, expected) or isinstance(item, bool):
            raise FormatError(f"{what}: element {index} is a {type(item).__name__}")
    return value


def _length(value: bytes, size: int, what: str) -> None:
    if len(value) != size:
        raise FormatError(f"{what}: {len(value)} bytes, expected {size}")
