"""Frames, segment headers and signed batches: vectors and each way they can be wrong."""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import (
    BadSignatureError,
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
from provenance.formats.producers.batch import (
    BATCH_CONTEXT,
    MAX_BATCH_RECORDS,
    open_batch,
    sign_batch,
)
from provenance.formats.record import Kind, salt_for

RUN = UUID("0192f0c1-2345-7abc-8def-0123456789ab")
PRODUCER = bytes(range(16))
HEADER = SegmentHeader(RUN, PRODUCER, 1, 4, 0)
EVENT = Event(5, Kind.METRICS, 3, 1, 1_700_000_000_123_456_789, {"metrics": {"loss": 0.5}})
KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


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


def test_record_of_is_deterministic() -> None:
    first = record_of(EVENT, HEADER, b"s" * 32)
    assert first.encode() == record_of(EVENT, HEADER, b"s" * 32).encode()
    assert first.salt == salt_for(b"s" * 32, PRODUCER, 5)
    assert (first.run, first.epoch, first.rank, first.seq) == (RUN, 3, 1, 5)


def batch() -> bytes:
    return sign_batch(RUN, PRODUCER, 1, 5, [b"one", b"two"], KEY)


def test_batch_layout_and_signature() -> None:
    data = batch()
    body = msgpack.packb([RUN.bytes, PRODUCER, 1, 5, [b"one", b"two"]], use_bin_type=True)
    public = KEY.public_key().public_bytes_raw()
    assert data == b"MLPB\x01" + KEY.sign(BATCH_CONTEXT + body) + public + body
    opened = open_batch(data)
    assert opened.records == (b"one", b"two")
    assert (opened.run, opened.producer, opened.rank, opened.first_seq) == (RUN, PRODUCER, 1, 5)
    assert opened.public_key == public


@given(st.data())
def test_no_flipped_bit_passes(data: st.DataObject) -> None:
    good = batch()
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, BadSignatureError)):
        open_batch(bytes(bad))


@given(st.binary(max_size=300))
def test_noise_is_refused_with_our_errors(noise: bytes) -> None:
    with pytest.raises((FormatError, BadSignatureError)):
        open_batch(noise)
    with pytest.raises(FormatError):
        Event.decode(noise)


def signed(body: bytes) -> bytes:
    public = KEY.public_key().public_bytes_raw()
    return b"MLPB\x01" + KEY.sign(BATCH_CONTEXT + body) + public + body


def test_well_signed_nonsense_is_refused() -> None:
    with pytest.raises(FormatError, match="array of 5"):
        open_batch(signed(msgpack.packb([])))
    with pytest.raises(TooLargeError, match="expected 1 to"):
        open_batch(signed(msgpack.packb([RUN.bytes, PRODUCER, 0, 0, []])))
    with pytest.raises(FormatError, match="not bytes"):
        open_batch(signed(msgpack.packb([RUN.bytes, PRODUCER, 0, 0, ["text"]])))
    with pytest.raises(UnknownVersionError, match="version 2"):
        open_batch(b"MLPB\x02" + batch()[5:])


def test_batches_are_bounded() -> None:
    with pytest.raises(TooLargeError):
        sign_batch(RUN, PRODUCER, 0, 0, [], KEY)
    with pytest.raises(TooLargeError):
        sign_batch(RUN, PRODUCER, 0, 0, [b""] * (MAX_BATCH_RECORDS + 1), KEY)
    with pytest.raises(TooLargeError):
        sign_batch(RUN, PRODUCER, 0, 0, [bytes(8 << 20)] * 3, KEY)
