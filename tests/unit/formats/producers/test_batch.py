"""Signed batches and what is left of one as a proof: layout, and each way they can be wrong."""

from __future__ import annotations

import hashlib

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import (
    BadSignatureError,
    FormatError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.formats.producers.batch import (
    MAX_BATCH_RECORDS,
    SignedRange,
    open_batch,
    sign_batch,
)
from provenance.formats.producers.certificate import Identity, certify, run_id, sign_identity
from provenance.formats.producers.statement import chain_on, chain_start, sign_statement

RUN_KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
KEY = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
PUBLIC, PRODUCER_KEY = (key.public_key().public_bytes_raw() for key in (RUN_KEY, KEY))
RUN = run_id(PUBLIC, 0x0192F0C12345)
PRODUCER = bytes(range(16))
CERTIFICATE = certify(RUN, RUN_KEY, PRODUCER, PRODUCER_KEY, 1)
BEFORE = chain_on(chain_start(RUN, PRODUCER), [b"\1" * 32] * 5)
IDENTITY = sign_identity(RUN, PUBLIC, RUN_KEY)


def batch(
    records: tuple[bytes, ...] = (b"one", b"two"), identity: bytes | None = IDENTITY
) -> bytes:
    return sign_batch(CERTIFICATE, KEY, 5, BEFORE, records, identity)


def digests(*records: bytes) -> list[bytes]:
    return [hashlib.sha256(record).digest() for record in records]


def test_batch_layout_and_signature() -> None:
    data = batch()
    chain = chain_on(BEFORE, digests(b"one", b"two"))
    signature = sign_statement(RUN, PRODUCER, 7, chain, KEY).signature
    parts = [CERTIFICATE.encode(), IDENTITY, 5, BEFORE, [b"one", b"two"], signature]
    assert data == b"MLPB\x01" + msgpack.packb(parts, use_bin_type=True)
    opened = open_batch(data)
    assert opened.records == (b"one", b"two")
    assert (opened.certificate, opened.first_seq, opened.before) == (CERTIFICATE, 5, BEFORE)
    assert (opened.statement.count, opened.chain) == (7, chain)
    assert (opened.identity, opened.identity_bytes) == (Identity(PUBLIC), IDENTITY)
    assert open_batch(batch(identity=None)).identity is None


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
        SignedRange.decode(noise)


def packed(first_seq: object = 5, records: object = (b"one",), before: object = BEFORE) -> bytes:
    parts = [CERTIFICATE.encode(), None, first_seq, before, records, bytes(64)]
    return b"MLPB\x01" + bytes(msgpack.packb(parts, use_bin_type=True))


def test_what_no_producer_signs_is_refused_and_named() -> None:
    for data, told in (
        (b"MLPB\x01" + msgpack.packb([1]), "array of 1, expected 6"),
        (b"MLPB\x01", "ends before its last field"),
        (packed(records=["text"]), "not msgpack of a batch"),
        (packed(records=[7]), "found int, expected bytes"),
        (packed(records=[[]]), "found list, expected bytes"),
        (packed(records=[{}] * 9), "found dict, expected bytes"),
        (packed(before=b"short"), "chain: 5 bytes"),
        (packed(first_seq=-1), "first seq -1"),
        (packed(first_seq=2**63 - 1), "first seq"),
    ):
        with pytest.raises(FormatError, match=told):
            open_batch(data)
    with pytest.raises(TooLargeError, match="expected 1 to"):
        open_batch(packed(records=[]))
    with pytest.raises(BadSignatureError, match="statement of producer"):
        open_batch(packed())
    with pytest.raises(UnknownVersionError, match="version 2"):
        open_batch(b"MLPB\x02" + batch()[5:])


def test_batches_are_bounded() -> None:
    with pytest.raises(TooLargeError):
        batch(())
    with pytest.raises(TooLargeError):
        batch((b"",) * (MAX_BATCH_RECORDS + 1))
    with pytest.raises(TooLargeError):
        batch((bytes(8 << 20),) * 3)


def test_a_batch_without_its_records_is_a_proof_of_each() -> None:
    proof = SignedRange.of(open_batch(batch()))
    one, two = digests(b"one", b"two")
    signature = open_batch(batch()).statement.signature
    assert proof.encode() == msgpack.packb([5, BEFORE, one + two, signature], use_bin_type=True)
    assert SignedRange.decode(proof.encode()) == proof
    proof.verify(RUN, PRODUCER, PRODUCER_KEY)
    assert [proof.digest_of(seq) for seq in (4, 5, 6, 7)] == [None, one, two, None]
    moved = SignedRange(6, proof.before, proof.digests, proof.signature)
    other = SignedRange(5, proof.before, (one, one), proof.signature)
    for forged in (moved, other):
        with pytest.raises(BadSignatureError):
            forged.verify(RUN, PRODUCER, PRODUCER_KEY)
    with pytest.raises(FormatError, match="33 bytes of digests"):
        SignedRange.decode(msgpack.packb([5, BEFORE, bytes(33), signature], use_bin_type=True))
