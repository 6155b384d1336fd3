"""Run ids, certificates, identities, chains, statements, acknowledgements: worked out by hand
from their docstrings, and each way they can be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import BadSignatureError, FormatError, InputError, UnknownVersionError
from provenance.formats.note import SignerKey
from provenance.formats.producers.acknowledgement import open_acknowledgement, sign_acknowledgement
from provenance.formats.producers.certificate import (
    Certificate,
    certify,
    check_run_id,
    open_identity,
    run_id,
    sign_identity,
)
from provenance.formats.producers.statement import (
    chain_on,
    chain_start,
    sign_statement,
    statement_bytes,
    statement_digest,
)

RUN_KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
KEY = Ed25519PrivateKey.from_private_bytes(b"\x08" * 32)
PUBLIC, OTHER = (key.public_key().public_bytes_raw() for key in (RUN_KEY, KEY))
MILLISECONDS = 0x0192F0C12345
PRODUCER = bytes(range(16))
RUN = run_id(PUBLIC, MILLISECONDS)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# --- run ids -----------------------------------------------------------------------------


def test_a_run_id_is_a_uuid_of_version_8_with_74_bits_of_the_keys_hash() -> None:
    bits = "".join(f"{byte:08b}" for byte in sha256(PUBLIC))[:74]
    text = f"{MILLISECONDS:048b}" + "1000" + bits[:12] + "10" + bits[12:]
    assert UUID(int=int(text, 2)) == RUN
    assert (RUN.version, RUN.variant) == (8, "specified in RFC 4122")
    assert str(RUN).startswith("0192f0c1-2345-8")


@given(st.integers(0, 127))
def test_no_other_id_fits_the_key_but_one_of_another_time(bit: int) -> None:
    other = UUID(int=RUN.int ^ 1 << bit)
    if bit >= 80:
        check_run_id(other, PUBLIC)
    else:
        with pytest.raises(FormatError, match="does not commit to key"):
            check_run_id(other, PUBLIC)


def test_run_ids_are_of_one_key_and_refuse_what_they_cannot_hold() -> None:
    check_run_id(RUN, PUBLIC)
    for key in (OTHER, PUBLIC[:-1]):
        with pytest.raises(FormatError, match="does not commit to key"):
            check_run_id(RUN, key)
    for key, time in ((PUBLIC, -1), (PUBLIC, 2**48), (b"", 0)):
        with pytest.raises(InputError):
            run_id(key, time)


# --- certificates and identities -----------------------------------------------------------


def test_a_certificate_is_164_bytes_under_the_runs_key() -> None:
    made = certify(RUN, RUN_KEY, PRODUCER, OTHER, 3)
    body = RUN.bytes + PUBLIC + PRODUCER + OTHER + b"\0\0\0\3"
    signature = RUN_KEY.sign(b"ml-provenance/producer/v1\0" + body)
    assert made.encode() == body + signature
    assert Certificate.decode(body + signature) == made
    for rank, producer, key in ((-1, PRODUCER, OTHER), (2**32, PRODUCER, OTHER), (0, b"", OTHER)):
        with pytest.raises(InputError):
            certify(RUN, RUN_KEY, producer, key, rank)


def test_nobody_certifies_for_a_run_of_another_key() -> None:
    """Whoever knows a run's id has no key that fits it."""
    forged = certify(RUN, KEY, PRODUCER, OTHER, 0).encode()
    with pytest.raises(FormatError, match="does not commit to key"):
        Certificate.decode(forged)


def test_an_identity_is_97_bytes_over_run_and_key() -> None:
    made = sign_identity(RUN, PUBLIC, KEY)
    signature = KEY.sign(b"ml-provenance/identity/v1\0" + RUN.bytes + PUBLIC)
    assert made == b"\1" + OTHER + signature
    assert open_identity(made, RUN, PUBLIC).key == OTHER
    with pytest.raises(UnknownVersionError):
        open_identity(b"\3" + made[1:], RUN, PUBLIC)
    with pytest.raises(BadSignatureError):
        open_identity(made, run_id(PUBLIC, 1), PUBLIC)
    with pytest.raises(FormatError, match="identity of 96 bytes"):
        open_identity(made[:-1], RUN, PUBLIC)


# --- chains and statements -----------------------------------------------------------------


def test_a_chain_begins_with_run_and_producer_and_takes_digests_in_order() -> None:
    one, two = sha256(b"one"), sha256(b"two")
    start = sha256(b"ml-provenance/chain/v1\0" + RUN.bytes + PRODUCER)
    assert chain_start(RUN, PRODUCER) == start
    assert chain_on(start, [one, two]) == sha256(sha256(start + one) + two)
    assert chain_on(start, []) == start


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20), st.data())
def test_a_chain_goes_on_anywhere_and_tells_every_change(
    digests: list[bytes], data: st.DataObject
) -> None:
    def naive(items: list[bytes]) -> bytes:
        chain = chain_start(RUN, PRODUCER)
        for item in items:
            chain = hashlib.sha256(b"".join([chain, item])).digest()
        return chain

    cut = data.draw(st.integers(0, len(digests)))
    whole = chain_on(chain_on(chain_start(RUN, PRODUCER), digests[:cut]), digests[cut:])
    assert whole == naive(digests)
    changed = data.draw(st.permutations(digests)) + data.draw(
        st.lists(st.just(bytes(32)), max_size=2)
    )
    if changed != digests:
        assert naive(changed) != whole


def test_a_statement_is_run_producer_count_and_chain() -> None:
    chain = sha256(b"chain")
    body = b"ml-provenance/statement/v1\0" + RUN.bytes + PRODUCER + bytes(7) + b"\5" + chain
    assert statement_bytes(RUN, PRODUCER, 5, chain) == body
    assert statement_digest(RUN, PRODUCER, 5, chain) == sha256(body)
    made = sign_statement(RUN, PRODUCER, 5, chain, KEY)
    assert made.signature == KEY.sign(body)
    made.verify(RUN, chain, OTHER)
    for run, other, key in (
        (run_id(PUBLIC, 1), chain, OTHER),
        (RUN, sha256(b""), OTHER),
        (RUN, chain, PUBLIC),
    ):
        with pytest.raises(BadSignatureError, match="statement of producer 00010203 over 5"):
            made.verify(run, other, key)
    for count, producer, length in (
        (-1, PRODUCER, 32),
        (2**63, PRODUCER, 32),
        (0, b"", 32),
        (0, PRODUCER, 31),
    ):
        with pytest.raises(FormatError):
            statement_bytes(RUN, producer, count, bytes(length))


def test_an_acknowledgement_is_count_chain_and_the_ledgers_signature() -> None:
    chain = sha256(b"chain")
    body = bytes(7) + b"\5" + chain
    made = body + KEY.sign(b"ml-provenance/acknowledgement/v1\0" + RUN.bytes + PRODUCER + body)
    signer = SignerKey.from_private_bytes("example.org/ledger", b"\x08" * 32)
    assert sign_acknowledgement(RUN, PRODUCER, 5, chain, signer) == made
    opened = open_acknowledgement(made, RUN, PRODUCER, OTHER)
    assert (opened.count, opened.chain) == (5, chain)
    for run, producer, key in (
        (run_id(PUBLIC, 1), PRODUCER, OTHER),
        (RUN, bytes(16), OTHER),
        (RUN, PRODUCER, PUBLIC),
    ):
        with pytest.raises(BadSignatureError):
            open_acknowledgement(made, run, producer, key)
    with pytest.raises(FormatError, match="103 bytes"):
        open_acknowledgement(made[1:], RUN, PRODUCER, OTHER)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "opened"),
    [
        (certify(RUN, RUN_KEY, PRODUCER, OTHER, 3).encode(), Certificate.decode),
        (sign_identity(RUN, PUBLIC, KEY), lambda data: open_identity(data, RUN, PUBLIC)),
    ],
    ids=["certificate", "identity"],
)
def test_no_flipped_bit_passes(made: bytes, opened: Callable[[bytes], object]) -> None:
    opened(made)
    for bit in range(8 * len(made)):
        bad = bytearray(made)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, BadSignatureError)):
            opened(bytes(bad))
