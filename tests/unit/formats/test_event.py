"""Frames, segment headers and events: vectors and each way they can be wrong."""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import (
    ChecksumError,
    FormatError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats.event import (
    MAX_FRAME_BYTES,
    Event,
    SegmentHeader,
    frame,
    read_frame,
    record_of,
)
from provenance.formats.record import Kind, salt_for

RUN = UUID("0192f0c1-2345-7abc-8def-0123456789ab")
PRODUCER = bytes(range(16))
HEADER = SegmentHeader(RUN, PRODUCER, 1, 4, 0)
EVENT = Event(5, Kind.METRICS, 3, 1, 1_700_000_000_123_456_789, {"metrics": {"loss": 0.5}})


def test_frame_is_length_crc_payload() -> None:
    assert frame(b"abc") == b"\x03\0\0\0" + struct.pack("<I", zlib.crc32(b"abc")) + b"abc"
    assert zlib.crc32(b"123456789") == 0xCBF43926  # the check value of CRC-32 (RFC 1952)
    assert read_frame(b"??" + frame(b"abc") + b"rest", 2) == (b"abc", 13)


def test_frame_problems_have_names() -> None:
    good = frame(b"payload")
    for cut in range(len(good)):
        with pytest.raises(TruncatedError):
            read_frame(good[:cut], 0)
    with pytest.raises(ChecksumError):
        read_frame(good[:-1] + b"X", 0)
    with pytest.raises(ChecksumError):
        read_frame(bytes(16), 0)
    with pytest.raises(TooLargeError):
        read_frame(struct.pack("<II", MAX_FRAME_BYTES + 1, 0), 0)
    with pytest.raises(TooLargeError):
        frame(bytes(MAX_FRAME_BYTES + 1))


def test_header_round_trips_and_refuses() -> None:
    data = HEADER.encode()
    assert data[:5] == b"MLPS\x01"
    assert SegmentHeader.decode(data + b"more") == (HEADER, len(data))
    with pytest.raises(TruncatedError):
        SegmentHeader.decode(b"MLP")
    with pytest.raises(UnknownVersionError, match="magic"):
        SegmentHeader.decode(b"XXXX" + data[4:])
    with pytest.raises(UnknownVersionError, match="version 9"):
        SegmentHeader.decode(b"MLPS\x09" + data[5:])
    with pytest.raises(FormatError, match="array of 5"):
        SegmentHeader.decode(b"MLPS\x01" + frame(msgpack.packb([1])))
    with pytest.raises(FormatError, match="run: 3 bytes"):
        SegmentHeader.decode(b"MLPS\x01" + frame(msgpack.packb([b"abc", PRODUCER, 0, 1, 0])))


def test_event_round_trips_and_refuses() -> None:
    payload = EVENT.encode()
    assert Event.decode(payload) == EVENT
    with pytest.raises(TrailingBytesError):
        Event.decode(payload + b"\0")
    with pytest.raises(TruncatedError):
        Event.decode(payload[:-1])
    with pytest.raises(FormatError, match="unknown kind"):
        Event.decode(msgpack.packb([0, "gossip", None, 0, 0, {}]))
    with pytest.raises(FormatError, match="element 0 is a bool"):
        Event.decode(msgpack.packb([True, "metrics", None, 0, 0, {}]))
    with pytest.raises(FormatError):
        Event.decode(b"\xc1")
    with pytest.raises(FormatError, match="unhashable"):
        Event.decode(b"\x81\x90\x01")  # a map with a list as its key


def test_record_of_is_deterministic() -> None:
    first = record_of(EVENT, HEADER, b"s" * 32)
    assert first.encode() == record_of(EVENT, HEADER, b"s" * 32).encode()
    assert first.salt == salt_for(b"s" * 32, PRODUCER, 5)
    assert (first.run, first.epoch, first.rank, first.seq) == (RUN, 3, 1, 5)


@given(st.binary(max_size=300))
def test_noise_is_refused_with_our_errors(noise: bytes) -> None:
    with pytest.raises(FormatError):
        Event.decode(noise)
