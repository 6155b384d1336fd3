"""Events: what lies in a spool segment.

FROZEN FORMAT. Pure: no I/O, no clock, no randomness.

Spool segment::

    b"MLPS" version(u8 = 1) frame(header) frame(event) frame(event) ...

A frame is ``length(u32) crc32(u32) payload``, little-endian, the CRC-32 of the
payload as in RFC 1952. The header payload is the msgpack array ``[run(16 bytes),
producer(16 bytes), rank, world_size, first_seq]``; an event payload is the msgpack
array ``[seq, kind, epoch, rank, ts_ns, fields]``.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgpack

from provenance.errors import (
    ChecksumError,
    FormatError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.record import Kind, Record, normalise, salt_for, timestamp

SEGMENT_MAGIC = b"MLPS"
SEGMENT_VERSION = 1
FRAME_HEADER = struct.Struct("<II")
MAX_FRAME_BYTES = 8 * 1024 * 1024


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
        payload = pack([self.run.bytes, self.producer, self.rank, self.world_size, self.first_seq])
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
        run, producer, rank, world_size, first_seq = read_array(
            payload, "segment header", (bytes, bytes, int, int, int)
        )
        check_length(run, 16, "run")
        check_length(producer, 16, "producer")
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
        return pack([self.seq, self.kind.value, self.epoch, self.rank, self.ts_ns, self.fields])

    @classmethod
    def decode(cls, payload: bytes) -> Event:
        """Read a payload.

        Raises:
            FormatError: Not the six-field array, or an unknown kind.
        """
        seq, kind, epoch, rank, ts_ns, fields = read_array(
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


def pack(value: object) -> bytes:
    """A value as msgpack bytes."""
    packed = msgpack.packb(value, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def read_array(payload: bytes, what: str, types: tuple[Any, ...]) -> list[Any]:
    """The msgpack array in the payload, its items of the given types."""
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


def check_length(value: bytes, size: int, what: str) -> None:
    """Refuse bytes of another length."""
    if len(value) != size:
        raise FormatError(f"{what}: {len(value)} bytes, expected {size}")
