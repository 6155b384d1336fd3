"""Signed heads: C2SP checkpoints and notes, against the Go note package's published key."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)
from provenance.formats import checkpoint, note
from provenance.formats.checkpoint import Head
from provenance.formats.note import SignerKey, VerifierKey
from tests.support import paths

VECTORS: dict[str, Any] = json.loads(
    (paths.VECTORS / "checkpoint.json").read_text(encoding="utf-8")
)
PETER = VerifierKey.from_vkey(VECTORS["vkey"])
ENOCH = VerifierKey.from_vkey(VECTORS["cosigner_vkey"])
SIGNER = SignerKey.from_private_bytes(PETER.name, bytes.fromhex(VECTORS["seed"]))
CHECKPOINT: dict[str, Any] = VECTORS["checkpoint"]
HEAD = Head(CHECKPOINT["origin"], CHECKPOINT["size"], bytes.fromhex(CHECKPOINT["root"]))
NOTE: str = CHECKPOINT["note"]
TEXT, SIGNATURE = NOTE[: NOTE.rfind("\n\n") + 1], NOTE[NOTE.rfind("\n\n") + 2 :]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def foreign(name: str = "witness.example/w1", size: int = 72) -> str:
    """A signature line of a key and type that this project does not know."""
    return f"— {name} {b64(bytes(4) + bytes(size))}\n"


def test_the_published_note_verifies() -> None:
    text, signatures = note.split_note(VECTORS["note"])
    assert text == VECTORS["note_text"]
    assert [s.name for s in signatures] == ["PeterNeumann", "EnochRoot"]
    note.verify_note(text, signatures, PETER)
    note.verify_note(text, signatures, ENOCH)


def test_the_published_seed_signs_the_published_bytes() -> None:
    _, signatures = note.split_note(VECTORS["note"])
    assert SIGNER.verifier == PETER
    assert SIGNER.sign(VECTORS["note_text"].encode()) == signatures[0].signature


def test_key_id_by_hand() -> None:
    material = base64.b64decode(VECTORS["vkey"].split("+", 2)[2])
    assert material[:1] == b"\x01"
    expected = hashlib.sha256(b"PeterNeumann\n" + material).digest()[:4]
    assert PETER.key_id == expected == bytes.fromhex("c74f20a3")
    assert PETER.vkey == VECTORS["vkey"]
    assert PETER.label == "PeterNeumann+c74f20a3"


def test_checkpoint_vector() -> None:
    assert checkpoint.sign_head(HEAD, SIGNER) == NOTE
    assert checkpoint.open_head(NOTE, PETER) == HEAD
    assert HEAD.text() == TEXT == f"{HEAD.origin}\n{HEAD.size}\n{b64(HEAD.root)}\n"


def test_the_example_of_the_specification_parses() -> None:
    example = VECTORS["specification_example"]
    signed = checkpoint.parse_note(example)
    assert signed.head.origin == "example.com/behind-the-sofa"
    assert signed.head.size == 20852163
    assert signed.head.text() == signed.text
    assert [len(s.signature) for s in signed.signatures] == [64]


def test_parse_does_not_verify_but_tells_all() -> None:
    signed = checkpoint.parse_note(TEXT + "\n" + foreign() + SIGNATURE)
    assert signed.head == HEAD
    assert signed.text == TEXT
    assert signed.extensions == ()
    assert [(s.name, s.line) for s in signed.signatures] == [
        ("witness.example/w1", 5),
        ("PeterNeumann", 6),
    ]


def test_foreign_signatures_are_ignored() -> None:
    assert checkpoint.open_head(TEXT + "\n" + foreign() + SIGNATURE + foreign("b"), PETER) == HEAD
    same_name = foreign(PETER.name)
    assert checkpoint.open_head(TEXT + "\n" + same_name + SIGNATURE, PETER) == HEAD


def test_extension_lines_are_kept() -> None:
    text = TEXT + "extra line\n"
    note = f"{text}\n— {SIGNER.name} {b64(PETER.key_id + SIGNER.sign(text.encode()))}\n"
    assert checkpoint.open_head(note, PETER) == HEAD
    assert checkpoint.parse_note(note).extensions == ("extra line",)


def test_no_signature_by_the_key() -> None:
    with pytest.raises(BadSignatureError, match=r"no signature by PeterNeumann\+c74f20a3.*w1\+0"):
        checkpoint.open_head(TEXT + "\n" + foreign(), PETER)
    with pytest.raises(BadSignatureError, match=r"\.\.\.$"):
        checkpoint.open_head(TEXT + "\n" + foreign() * 5, PETER)


def test_a_changed_text_is_refused_by_line() -> None:
    changed = NOTE.replace(f"\n{HEAD.size}\n", f"\n{HEAD.size + 1}\n")
    with pytest.raises(BadSignatureError, match="note line 5: signature by PeterNeumann"):
        checkpoint.open_head(changed, PETER)


def test_one_bad_signature_of_the_key_spoils_the_note() -> None:
    bad = f"— {PETER.name} {b64(PETER.key_id + bytes(64))}\n"
    with pytest.raises(BadSignatureError, match="note line 6"):
        checkpoint.open_head(TEXT + "\n" + SIGNATURE + bad, PETER)


def test_a_signature_of_another_length_is_a_bad_signature() -> None:
    blob = b64(PETER.key_id + bytes(63))
    with pytest.raises(BadSignatureError, match="line 5"):
        checkpoint.open_head(f"{TEXT}\n— {PETER.name} {blob}\n", PETER)


@pytest.mark.parametrize(
    ("note", "error", "message"),
    [
        ("", TruncatedError, "does not end with a newline"),
        (NOTE[:-1], TruncatedError, "does not end with a newline"),
        (TEXT, TruncatedError, "no empty line"),
        (TEXT + "\n", TruncatedError, "no signature"),
        (TEXT + "\n" + SIGNATURE + "more\n", FormatError, "line 6: expected"),
        (TEXT + "\n" + SIGNATURE[2:], FormatError, "line 5: expected"),
        (TEXT + "\n— Bad Name " + SIGNATURE.split(" ")[2], FormatError, "line 5"),
        (TEXT + "\n— a+b " + SIGNATURE.split(" ")[2], FormatError, "line 5: expected"),
        (TEXT + "\n— name\n", FormatError, "line 5: expected"),
        (TEXT + "\n— name !!!!\n", FormatError, "line 5: signature is not base64"),
        (TEXT + "\n— name é===\n", FormatError, "line 5: signature is not base64"),
        (TEXT + "\n— name AAAAAAB=\n", FormatError, "line 5: signature is not base64"),
        (TEXT + "\n— name AAAAAA==\n", TruncatedError, "line 5: signature has 4 bytes"),
        ("\x01" + NOTE, FormatError, "line 1: a control"),
        (NOTE.replace("\n", "\r\n"), FormatError, "line 1: a control"),
        ("\udcff" + NOTE, FormatError, "line 1: a control character or invalid"),
        ("a\n1\n\n" + SIGNATURE, TruncatedError, "has 2 lines"),
        ("a\n\n1\n" + TEXT + "\n" + SIGNATURE, FormatError, "line 2: empty"),
        ("\n1\n2\n\n" + SIGNATURE, FormatError, "line 1: empty"),
        (NOTE.replace("\n42\n", "\n042\n"), FormatError, "line 2: size '042'"),
        (NOTE.replace("\n42\n", "\n-1\n"), FormatError, "line 2"),
        (NOTE.replace("\n42\n", "\n4\uff12\n"), FormatError, "line 2"),
        (NOTE.replace("\n42\n", f"\n{2**63}\n"), TooLargeError, "line 2"),
        (NOTE.replace("\n42\n", "\n" + "9" * 30 + "\n"), FormatError, "line 2"),
        ("a\n1\nAAAA\n\n" + SIGNATURE, FormatError, "line 3: root has 3 bytes"),
        ("a\n1\n?\n\n" + SIGNATURE, FormatError, "line 3: root is not base64"),
        (TEXT + "\n" + foreign() * 101, TooLargeError, "101 signatures"),
        ("x" * 1_000_001, TooLargeError, "more than 1000000 bytes"),
        ("é" * 600_000, TooLargeError, "more than 1000000 bytes"),
    ],
)
def test_what_is_wrong_with_a_note(note: str, error: type[FormatError], message: str) -> None:
    with pytest.raises(error, match=message):
        checkpoint.parse_note(note)


def test_a_hundred_signatures_are_fine() -> None:
    assert checkpoint.open_head(TEXT + "\n" + foreign() * 99 + SIGNATURE, PETER) == HEAD


@pytest.mark.parametrize(
    ("origin", "size", "root"),
    [
        ("", 1, bytes(32)),
        ("a\n9", 1, bytes(32)),
        ("a\tb", 1, bytes(32)),
        ("\ud800", 1, bytes(32)),
        ("a", -1, bytes(32)),
        ("a", 2**63, bytes(32)),
        ("a", 1, bytes(31)),
    ],
)
def test_a_head_that_cannot_be_written(origin: str, size: int, root: bytes) -> None:
    with pytest.raises(InputError):
        Head(origin, size, root)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "\x7f\x00"])
def test_key_names(name: str) -> None:
    with pytest.raises(InputError, match="key name"):
        SignerKey.from_private_bytes(name, bytes(32))


def test_keys_have_32_bytes_and_stay_private() -> None:
    with pytest.raises(InputError, match="got 31"):
        SignerKey.from_private_bytes("a", bytes(31))
    with pytest.raises(InputError, match="got 33"):
        VerifierKey("a", bytes(33))
    assert VECTORS["seed"] not in repr(SIGNER)
    assert "rivate" not in repr(SIGNER)


def vkey_of(material: bytes, name: str = "PeterNeumann") -> str:
    key_id = hashlib.sha256(name.encode() + b"\n" + material).digest()[:4].hex()
    return f"{name}+{key_id}+{b64(material)}"


@pytest.mark.parametrize(
    ("vkey", "error", "message"),
    [
        ("", FormatError, "expected name"),
        ("a+b", FormatError, "expected name"),
        ("+c74f20a3+AAAA", FormatError, "expected name"),
        ("a b+c74f20a3+AAAA", FormatError, "expected name"),
        ("a+00000000+?", FormatError, "not base64"),
        ("a+00000000+", FormatError, "key type none"),
        (vkey_of(b"\x04" + bytes(32)), FormatError, "key type 04"),
        (vkey_of(b"\x01" + bytes(31)), TruncatedError, "expected 33 bytes, got 32"),
        (vkey_of(b"\x01" + bytes(33)), TrailingBytesError, "expected 33 bytes, got 34"),
        (PETER.vkey.replace("c74f20a3", "C74F20A3"), FormatError, "key id is"),
        (PETER.vkey.replace("Peter", "Pater"), FormatError, "key id is 'c74f20a3'"),
    ],
)
def test_what_is_wrong_with_a_verifier_key(
    vkey: str, error: type[FormatError], message: str
) -> None:
    with pytest.raises(error, match=message):
        VerifierKey.from_vkey(vkey)


def test_no_part_and_no_neighbour_of_a_verifier_key_parses() -> None:
    vkey = PETER.vkey
    for start in range(len(vkey)):
        for end in range(start + 1, len(vkey) + 1):
            if (start, end) != (0, len(vkey)):
                with pytest.raises(FormatError):
                    VerifierKey.from_vkey(vkey[start:end])
    for at in range(len(vkey)):
        with pytest.raises(FormatError):
            VerifierKey.from_vkey(vkey[:at] + chr(ord(vkey[at]) + 1) + vkey[at + 1 :])


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_any_head_comes_back(size: int, root: bytes) -> None:
    head = Head("example.org/ledger é", size, root)
    assert checkpoint.open_head(checkpoint.sign_head(head, SIGNER), PETER) == head


@pytest.mark.slow
@given(st.integers(0, len(NOTE) - 1), st.characters(codec="utf-8"))
@settings(max_examples=200, deadline=None)
def test_no_changed_character_passes(at: int, character: str) -> None:
    changed = NOTE[:at] + character + NOTE[at + 1 :]
    if changed != NOTE:
        with pytest.raises((FormatError, BadSignatureError)):
            checkpoint.open_head(changed, PETER)
