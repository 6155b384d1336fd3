"""Cosignatures, tlog-proofs and tiles, against published values and the specifications' text.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    ProofError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownVersionError,
)
from provenance.formats import merkle
from provenance.formats.checkpoint import Head, open_head, parse_note, sign_head
from provenance.formats.cosignature import MAX_TIME, Cosignature, WitnessKey, cosigned_message
from provenance.formats.note import NoteSignature, SignerKey, VerifierKey, decode_base64
from provenance.formats.tlog.proof import HEADER, MAX_EXTRA_BYTES, TlogProof
from provenance.formats.tlog.tiles import Tile, TiledLedger, tiles

# A checkpoint that a public log served, with lines of public witnesses: real signatures by
# other people's programs (log arche2025h1.staging.ct.transparency.dev at size 1,432,088,532).
PUBLISHED = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3\
urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI7\
5MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgc\
qoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3\
u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk\
5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2T\
UFucgKi7lI7cUiOvKFYe/TmN9DAg==
"""
PUBLISHED_LOG = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ\
472xgFYh15f"
WITNESSES = (
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
)
SIGNER = SignerKey.from_private_bytes("example.org/ledger", bytes(range(32)))
SECRET = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
WITNESS = WitnessKey("witness.example/w1", SECRET.public_key().public_bytes_raw())
ENTRIES = [hashlib.sha256(b"%d" % i).digest() for i in range(7)]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def note_of(size: int = 7, signer: SignerKey = SIGNER, origin: str | None = None) -> str:
    return sign_head(Head(origin or signer.name, size, merkle.root(ENTRIES[:size])), signer)


def proof_of(index: int = 4, size: int = 7) -> TlogProof:
    return TlogProof(index, merkle.MerkleTree(ENTRIES[:size]).inclusion_proof(index), note_of(size))


def cosigned(note: str, time: int = 1679315147, witness: WitnessKey = WITNESS) -> str:
    """The note with one more line, made from the specification's text alone."""
    text = parse_note(note).text
    message = b"cosignature/v1\ntime %d\n" % time + text.encode()
    blob = witness.key_id + time.to_bytes(8, "big") + SECRET.sign(message)
    return f"{note}— {witness.name} {b64(blob)}\n"


# --- cosignatures ------------------------------------------------------------------------


@pytest.mark.parametrize("vkey", WITNESSES)
def test_published_cosignatures_verify(vkey: str) -> None:
    witness = WitnessKey.from_vkey(vkey)
    assert witness.vkey == vkey
    signed = parse_note(PUBLISHED)
    (made,) = witness.cosignatures(signed.text, signed.signatures)
    assert (made.name, made.time) == (witness.name, 1779573024)
    assert made.when == "2026-05-23T21:50:24Z"
    assert made.line() in PUBLISHED
    changed = signed.text.replace("1432088532", "1432088533")
    with pytest.raises(BadSignatureError, match="does not verify"):
        witness.cosignatures(changed, signed.signatures)


def test_the_published_head_is_signed_by_its_log_beside_the_witnesses() -> None:
    head = open_head(PUBLISHED, VerifierKey.from_vkey(PUBLISHED_LOG))
    assert head.size == 1432088532
    made = [Cosignature.of(line) for line in parse_note(PUBLISHED).signatures]
    shaped = [m.name for m in made if m is not None]
    assert shaped == [*(v.split("+")[0] for v in WITNESSES), "witness.stagemole.eu"]


def test_the_time_of_the_specifications_example() -> None:
    blob = base64.b64decode(
        "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+"
        "mbIUBkBIfZ+qnA=="
    )
    made = Cosignature.of(NoteSignature("witness.example.com/w1", blob[:4], blob[4:], 6))
    assert made is not None
    assert (made.time, made.when) == (1679315147, "2023-03-20T12:25:47Z")
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert cosigned_message(text, made.time) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_key_id_by_hand() -> None:
    material = b"\x04" + WITNESS.public_bytes
    assert WITNESS.key_id == hashlib.sha256(b"witness.example/w1\n" + material).digest()[:4]
    assert WITNESS.vkey == f"witness.example/w1+{WITNESS.key_id.hex()}+{b64(material)}"
    assert VerifierKey(WITNESS.name, WITNESS.public_bytes).key_id != WITNESS.key_id


def test_a_witness_signs_more_than_once_and_each_line_counts() -> None:
    note = cosigned(cosigned(note_of()), time=0)
    signed = parse_note(note)
    times = [made.time for made in WITNESS.cosignatures(signed.text, signed.signatures)]
    assert times == [1679315147, 0]
    assert open_head(note, SIGNER.verifier).size == 7


@pytest.mark.parametrize("at", [4, 11, 12, 40, 75])
def test_one_changed_bit_of_a_cosignature_is_refused(at: int) -> None:
    note = cosigned(note_of())
    blob = bytearray(base64.b64decode(note.rstrip("\n").rpartition(" ")[2]))
    blob[at] ^= 1
    signed = parse_note(note.rpartition(" ")[0] + f" {b64(bytes(blob))}\n")
    with pytest.raises(BadSignatureError, match=r"note line 6: .*witness\.example/w1\+"):
        WITNESS.cosignatures(signed.text, signed.signatures)


@pytest.mark.parametrize("size", [1, 64, 71, 73, 2428])
def test_a_line_in_the_name_of_a_witness_of_another_shape_is_refused(size: int) -> None:
    blob = b64(WITNESS.key_id + bytes(size))
    signed = parse_note(f"{note_of()}— {WITNESS.name} {blob}\n")
    assert Cosignature.of(signed.signatures[1]) is None
    with pytest.raises(BadSignatureError, match="line 6"):
        WITNESS.cosignatures(signed.text, signed.signatures)


def test_lines_by_others_are_no_concern_of_a_witness() -> None:
    same_name = f"— {WITNESS.name} {b64(bytes(76))}\n"
    same_id = f"— other {b64(WITNESS.key_id + bytes(72))}\n"
    signed = parse_note(note_of() + same_name + same_id)
    assert WITNESS.cosignatures(signed.text, signed.signatures) == ()


def test_times_that_cannot_be() -> None:
    beyond = NoteSignature("w", bytes(4), (MAX_TIME + 1).to_bytes(8, "big") + bytes(64), 5)
    assert Cosignature.of(beyond) is None
    last = Cosignature.of(NoteSignature("w", bytes(4), MAX_TIME.to_bytes(8, "big") + bytes(64), 5))
    assert last is not None
    assert last.when == f"second {MAX_TIME}"
    assert Cosignature("w", bytes(4), 253_402_300_799, b"").when == "9999-12-31T23:59:59Z"
    assert Cosignature("w", bytes(4), 253_402_300_800, b"").when == "second 253402300800"


def test_a_strangers_name_is_shown_without_what_a_terminal_obeys() -> None:
    assert Cosignature("w\x9b31m", bytes(4), 0, b"").label == r"'w\x9b31m'"
    assert Cosignature("w" * 100, bytes(4), 0, b"").label == "w" * 77 + "..."


def vkey_of(material: bytes, name: str = "w") -> str:
    key_id = hashlib.sha256(name.encode() + b"\n" + material).digest()[:4].hex()
    return f"{name}+{key_id}+{b64(material)}"


@pytest.mark.parametrize(
    ("vkey", "error", "message"),
    [
        ("", FormatError, "expected name"),
        ("a+b", FormatError, "expected name"),
        ("a+00000000+?", FormatError, "'a': key is not base64"),
        ("a+00000000+", FormatError, "key type none"),
        (SIGNER.verifier.vkey, FormatError, "key type 01, expected 04"),
        (vkey_of(b"\x06" + bytes(1312)), FormatError, "key type 06, expected 04"),
        (vkey_of(b"\x04" + bytes(31)), TruncatedError, "expected 33 bytes, got 32"),
        (vkey_of(b"\x04" + bytes(33)), TrailingBytesError, "expected 33 bytes, got 34"),
        (WITNESS.vkey.replace("w1", "w2"), FormatError, "but this key has"),
        (vkey_of(b"\x04" + bytes(32), "a b"), FormatError, "expected name"),
        (vkey_of(b"\x04" + bytes(32), ""), FormatError, "expected name"),
    ],
)
def test_what_is_wrong_with_a_witness_key(vkey: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        WitnessKey.from_vkey(vkey)


# --- tlog-proof --------------------------------------------------------------------------


def test_a_proof_line_by_line() -> None:
    proof = proof_of()
    expected = [
        HEADER,
        "index 4",
        *map(b64, merkle.MerkleTree(ENTRIES).inclusion_proof(4)),
        "",
        note_of(),
    ]
    assert proof.encode() == "\n".join(expected)
    assert TlogProof.decode(proof.encode()) == proof
    assert TlogProof.decode(proof.encode().encode()) == proof
    assert proof.verify(ENTRIES[4], SIGNER.verifier).root == merkle.root(ENTRIES)
    assert proof.verify(ENTRIES[4], None).size == 7


def test_a_tree_of_one_entry_needs_no_hashes() -> None:
    proof = proof_of(0, 1)
    assert proof.encode() == f"{HEADER}\nindex 0\n\n{note_of(1)}"
    assert TlogProof.decode(proof.encode()).verify(ENTRIES[0], SIGNER.verifier).size == 1


def test_extra_data_comes_back_and_counts_for_nothing() -> None:
    plain = proof_of()
    proof = TlogProof(plain.index, plain.hashes, plain.checkpoint, b"age-v1.2.1")
    lines = proof.encode().split("\n")
    assert lines[:3] == [HEADER, f"extra {b64(b'age-v1.2.1')}", "index 4"]
    assert TlogProof.decode(proof.encode()) == proof
    assert proof.verify(ENTRIES[4], SIGNER.verifier) == plain.verify(ENTRIES[4], SIGNER.verifier)


def test_cosignature_lines_travel_in_the_proof() -> None:
    proof = TlogProof(4, merkle.MerkleTree(ENTRIES).inclusion_proof(4), cosigned(note_of()))
    again = TlogProof.decode(proof.encode())
    again.verify(ENTRIES[4], SIGNER.verifier)
    signed = parse_note(again.checkpoint)
    assert len(WITNESS.cosignatures(signed.text, signed.signatures)) == 1


def test_what_a_proof_does_not_prove() -> None:
    proof, key = proof_of(), SIGNER.verifier
    with pytest.raises(ProofError, match="inclusion of leaf 4"):
        proof.verify(ENTRIES[3], key)
    with pytest.raises(ProofError):
        TlogProof(3, proof.hashes, proof.checkpoint).verify(ENTRIES[4], key)
    with pytest.raises(ProofError, match="needs 3"):
        TlogProof(4, proof.hashes[1:], proof.checkpoint).verify(ENTRIES[4], key)
    with pytest.raises(ProofError, match="no such leaf"):
        TlogProof(7, proof.hashes, proof.checkpoint).verify(ENTRIES[4], key)
    stranger = SignerKey.from_private_bytes(SIGNER.name, bytes(32))
    with pytest.raises(BadSignatureError):
        TlogProof(4, proof.hashes, note_of(signer=stranger)).verify(ENTRIES[4], key)
    elsewhere = TlogProof(4, proof.hashes, note_of(origin="other.example/log"))
    with pytest.raises(ProofError, match="of ledger 'other.example/log'"):
        elsewhere.verify(ENTRIES[4], key)


HASH = b64(bytes(32))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", UnknownVersionError, "line 1"),
        ("c2sp.org/tlog-proof@v2\n", UnknownVersionError, "@v2"),
        (f"{HEADER}\r\nindex 0\r\n\r\n", UnknownVersionError, "line 1"),
        (f"{HEADER}", TruncatedError, "no empty line"),
        (f"{HEADER}\nindex 0\n{HASH}\n", TruncatedError, "no empty line"),
        (f"{HEADER}\n\nNOTE", FormatError, "line 2: expected 'index'"),
        (f"{HEADER}\nextra AAAA\n\nNOTE", TruncatedError, "line 3: expected index"),
        (f"{HEADER}\nextra AAAA\nextra AAAA\nindex 0\n\nNOTE", FormatError, "line 3"),
        (f"{HEADER}\nextra \nindex 0\n\nNOTE", FormatError, "line 2: extra without"),
        (f"{HEADER}\nextra AAA\nindex 0\n\nNOTE", FormatError, "line 2: extra is not base64"),
        (f"{HEADER}\nindex 0\nextra AAAA\n\nNOTE", FormatError, "line 3: hash is not base64"),
        (f"{HEADER}\nindex\n\nNOTE", FormatError, "line 2"),
        (f"{HEADER}\nindex 00\n\nNOTE", FormatError, "line 2"),
        (f"{HEADER}\nindex -1\n\nNOTE", FormatError, "line 2"),
        (f"{HEADER}\nindex 1 \n\nNOTE", FormatError, "line 2"),
        (f"{HEADER}\nindex  1\n\nNOTE", FormatError, "line 2"),
        (f"{HEADER}\nindex \uff11\n\nNOTE", FormatError, "line 2"),
        (f"{HEADER}\nindex {2**63 - 1}\n\nNOTE", TooLargeError, "line 2: index"),
        (f"{HEADER}\nindex {'9' * 20}\n\nNOTE", FormatError, "line 2"),
        (f"{HEADER}\nindex 0\nAAAA\n\nNOTE", FormatError, "line 3: hash has 3 bytes"),
        (f"{HEADER}\nindex 0\n{HASH}\n{HASH} \n\nNOTE", FormatError, "line 4: hash is not"),
        (f"{HEADER}\nextra AAAA\nindex 0\n{HASH}\n?\n\nNOTE", FormatError, "line 5"),
        (f"{HEADER}\nindex 0\n" + f"{HASH}\n" * 64 + "\nNOTE", TooLargeError, "64 hashes"),
        (f"{HEADER}\nindex 0\n\n", TruncatedError, "note does not end"),
        (f"{HEADER}\nindex 0\n\na\n1\n\n", TruncatedError, "no signature"),
        (f"{HEADER}\nindex 0\n\n\nNOTE", FormatError, "note line 1: empty"),
        ("x" * (1024**2 + 1), TooLargeError, "more than 1048576 bytes"),
        (f"{HEADER}\nextra {b64(bytes(MAX_EXTRA_BYTES + 1))}\nindex 0\n\nNOTE", TooLargeError, "2"),
    ],
)
def test_what_is_wrong_with_a_proof(text: str, error: type[FormatError], message: str) -> None:
    with pytest.raises(error, match=message):
        TlogProof.decode(text.replace("NOTE", note_of(1)))


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(FormatError, match="not UTF-8"):
        TlogProof.decode(b"\xff")


@pytest.mark.parametrize(
    ("index", "hashes", "extra"),
    [
        (-1, (), None),
        (2**63 - 1, (), None),
        (0, (bytes(31),), None),
        (0, (bytes(32),) * 64, None),
        (0, (), b""),
        (0, (), bytes(MAX_EXTRA_BYTES + 1)),
    ],
)
def test_a_proof_that_cannot_be_written(
    index: int, hashes: tuple[bytes, ...], extra: bytes | None
) -> None:
    with pytest.raises(InputError, match="tlog-proof"):
        TlogProof(index, hashes, note_of(), extra)


def test_the_largest_proof_is_read() -> None:
    filler = "".join(f"— w{i} {b64(bytes(7000))}\n" for i in range(99))
    proof = TlogProof(2**63 - 2, (bytes(32),) * 63, note_of() + filler, bytes(MAX_EXTRA_BYTES))
    assert len(proof.encode()) > 900_000
    assert TlogProof.decode(proof.encode()) == proof


@pytest.mark.parametrize("text", ["AAAAA", "AAAB=", "é===", "AA==\n", "A A="])
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(FormatError, match="it is not base64"):
        decode_base64(text, "it")


# --- tiles -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 0, 1), "tile/0/000.p/1"),
        (Tile(1, 999), "tile/1/999"),
        (Tile(63, 1000), "tile/63/x001/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(2, 1234067, 255), "tile/2/x001/x234/067.p/255"),
        (Tile(None, 5, 17), "tile/entries/005.p/17"),
    ],
)
def test_paths_of_the_specification(tile: Tile, path: str) -> None:
    assert tile.path == path


def test_the_specifications_tree_of_70000() -> None:
    found = [tile for tile in tiles(70_000) if tile.level is not None]
    counted = [(tile.level, tile.width) for tile in found]
    assert counted.count((0, 256)) == 273
    assert counted[273:] == [(0, 112), (1, 256), (1, 17), (2, 1)]
    bundles = [tile for tile in tiles(70_000) if tile.level is None]
    assert [(t.index, t.width) for t in bundles] == [*((i, 256) for i in range(273)), (273, 112)]


@pytest.mark.parametrize(
    ("size", "paths"),
    [
        (0, []),
        (1, ["tile/entries/000.p/1", "tile/0/000.p/1"]),
        (255, ["tile/entries/000.p/255", "tile/0/000.p/255"]),
        (256, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]),
        (
            257,
            [
                "tile/entries/000",
                "tile/entries/001.p/1",
                "tile/0/000",
                "tile/0/001.p/1",
                "tile/1/000.p/1",
            ],
        ),
    ],
)
def test_small_ledgers(size: int, paths: list[str]) -> None:
    assert [tile.path for tile in tiles(size)] == paths


def test_no_ledger_of_that_size() -> None:
    for size in (-1, 2**63):
        with pytest.raises(ValueError, match="no ledger"):
            next(tiles(size))


def tiled(entries: Sequence[bytes]) -> TiledLedger:
    return TiledLedger(merkle.MerkleTree(entries), lambda first, end: entries[first:end])


def test_the_bytes_of_tiles() -> None:
    ledger = tiled(ENTRIES)
    assert ledger.data(Tile(0, 0, 7)) == b"".join(
        hashlib.sha256(b"\0" + entry).digest() for entry in ENTRIES
    )
    assert ledger.data(Tile(None, 0, 7)) == b"".join(b"\x00\x20" + entry for entry in ENTRIES)
    assert ledger.data(Tile(0, 0, 3)) == ledger.data(Tile(0, 0, 7))[:96]


@pytest.mark.parametrize(
    ("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (None, 0, 0), (0, 0, 257)]
)
def test_a_tile_that_cannot_be(level: int | None, index: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"no tile {index} of width {width}"):
        Tile(level, index, width)


@pytest.mark.parametrize("tile", [Tile(0, 0), Tile(0, 1, 1), Tile(1, 0, 1), Tile(0, 0, 8)])
def test_a_tile_that_is_not_there(tile: Tile) -> None:
    with pytest.raises(ValueError, match="no tile"):
        tiled(ENTRIES).data(tile)


def test_an_entry_longer_than_a_bundle_takes() -> None:
    assert len(tiled([bytes(65_535)]).data(Tile(None, 0, 1))) == 65_537
    with pytest.raises(ValueError, match="entry 1 has 65536 bytes"):
        tiled([b"", bytes(65_536)]).data(Tile(None, 0, 2))
