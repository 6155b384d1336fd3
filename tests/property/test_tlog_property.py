"""tlog-proofs, cosignatures and tiles: whatever goes in comes out, and no change passes."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st

from provenance.errors import FormatError, IntegrityError, ProvenanceError
from provenance.formats import merkle
from provenance.formats.checkpoint import Head, parse_note, sign_head
from provenance.formats.cosignature import Cosignature, WitnessKey, cosigned_message
from provenance.formats.note import SignerKey
from provenance.formats.tlog.proof import TlogProof
from provenance.formats.tlog.tiles import TiledLedger, tiles

SIGNER = SignerKey.from_private_bytes("example.org/ledger", bytes(range(32)))
SECRET = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
WITNESS = WitnessKey("witness.example/w1", SECRET.public_key().public_bytes_raw())
ENTRIES = [hashlib.sha256(b"%d" % i).digest() for i in range(300)]


def proof_of(index: int, size: int, extra: bytes | None = None) -> TlogProof:
    head = Head(SIGNER.name, size, merkle.root(ENTRIES[:size]))
    path = merkle.MerkleTree(ENTRIES[:size]).inclusion_proof(index)
    return TlogProof(index, path, sign_head(head, SIGNER), extra)


@given(st.data(), st.integers(1, 300), st.none() | st.binary(min_size=1, max_size=80))
def test_every_proof_comes_back_and_verifies(
    data: st.DataObject, size: int, extra: bytes | None
) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = proof_of(index, size, extra)
    again = TlogProof.decode(proof.encode())
    assert again == proof
    assert again.verify(ENTRIES[index], SIGNER.verifier).size == size


TEXT = proof_of(9, 23).encode()


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="utf-8"))
def test_no_changed_character_passes(at: int, character: str) -> None:
    changed = TEXT[:at] + character + TEXT[at + 1 :]
    assume(changed != TEXT)
    try:
        TlogProof.decode(changed).verify(ENTRIES[9], SIGNER.verifier)
    except ProvenanceError:
        return
    # A first signature line by somebody else would be another valid file; one character of
    # this one makes none.
    raise AssertionError(f"passes with {character!r} at {at}")


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_nothing_but_a_format_error_comes_of_anything(data: bytes) -> None:
    for given_ in (data, TEXT.encode()[:60] + data, TEXT.encode()[:-30] + data):
        try:
            proof = TlogProof.decode(given_)
        except FormatError:
            continue
        assert proof.encode().encode() == given_


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_a_cosignature_comes_back_and_verifies_for_its_text_alone(time: int, size: int) -> None:
    note = sign_head(Head(SIGNER.name, size, bytes(32)), SIGNER)
    text = parse_note(note).text
    made = Cosignature(
        WITNESS.name, WITNESS.key_id, time, SECRET.sign(cosigned_message(text, time))
    )
    signed = parse_note(note + made.line())
    assert WITNESS.cosignatures(text, signed.signatures) == (made,)
    with pytest.raises(IntegrityError):
        WITNESS.cosignatures(text.replace("\n", "0\n", 2), signed.signatures)


@given(st.integers(0, 600) | st.integers(0, 2**19))
def test_tiles_are_those_of_the_specification(size: int) -> None:
    found = {(t.level, t.index, t.width) for t in tiles(size) if t.level is not None}
    expected = set()
    for level in range(9):
        count = size // 256**level
        expected |= {(level, index, 256) for index in range(count // 256)}
        if count % 256:
            expected.add((level, count // 256, count % 256))
    assert found == expected


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_entries_come_back_from_their_bundle(entries: list[bytes]) -> None:
    ledger = TiledLedger(merkle.MerkleTree(entries), lambda first, end: entries[first:end])
    read: list[bytes] = []
    for tile in tiles(len(entries)):
        rest = ledger.data(tile) if tile.level is None else b""
        while rest:
            length = int.from_bytes(rest[:2], "big")
            read.append(rest[2 : 2 + length])
            rest = rest[2 + length :]
    assert read == entries
