"""Statements, their encoding for signatures, and the sigstore bundle around them."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import (
    FormatError,
    InputError,
    ProvenanceError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.formats import dsse
from provenance.formats.dsse import Statement, Subject, key_hint, pae, sigstore_bundle

STATEMENT = Statement(
    (Subject("run", {"sha256": "00ff"}, {"seal": "after"}),), "https://example.org/p", {"a": [1]}
)


def test_the_encoding_that_is_signed_is_that_of_the_specification() -> None:
    # protocol.md of DSSE v1.0.2, "Test Vectors".
    assert pae(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae(b"") == b"DSSEv1 28 application/vnd.in-toto+json 0 "
    # Lengths count bytes, not characters.
    assert pae("é".encode(), "é") == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


def test_a_statement_is_canonical_json_and_reads_back() -> None:
    data = STATEMENT.encode()
    assert data == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"a":[1]},'
        b'"predicateType":"https://example.org/p","subject":[{"annotations":{"seal":"after"},'
        b'"digest":{"sha256":"00ff"},"name":"run"}]}'
    )
    read = Statement.decode(data)
    assert read == STATEMENT
    assert read.encode() == data


def test_empty_annotations_are_left_out() -> None:
    assert Subject("x", {"sha256": "00"}).as_json() == {"name": "x", "digest": {"sha256": "00"}}


def changed(**fields: Any) -> bytes:
    document = json.loads(STATEMENT.encode()) | fields
    kept = {name: value for name, value in document.items() if value is not ...}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"{", FormatError, "not JSON"),
        (b"[]", FormatError, "found a list, expected an object"),
        (b"\xff", FormatError, "not JSON"),
        (b"[" * 100_000, FormatError, "nested deeper"),
        (changed(_type="https://in-toto.io/Statement/v2"), UnknownVersionError, "Statement/v2"),
        (changed(_type=...), UnknownVersionError, "_type: found no version"),
        (changed(extra=1), FormatError, "extra: unknown key"),
        (changed(predicate=...), FormatError, "predicate: found nothing"),
        (changed(predicate=[]), FormatError, "predicate: found a list"),
        (changed(predicateType=7), FormatError, "predicateType: found 7, expected text"),
        (changed(subject={}), FormatError, "subject: found an object"),
        (changed(subject=[]), TooLargeError, "0 subjects"),
        (changed(subject=[7]), FormatError, r"subject\[0\]: found 7, expected an object"),
        (changed(subject=[{"name": "x"}]), FormatError, r"subject\[0\].digest: found nothing"),
        (changed(subject=[{"name": "x", "digest": {}}]), FormatError, "at least one digest"),
        (
            changed(subject=[{"name": 1, "digest": {"a": "00"}}]),
            FormatError,
            r"subject\[0\].name: found 1, expected text",
        ),
        (changed(subject=[{"name": "x", "digest": {"a": "0"}}]), FormatError, "lower-case hex"),
        (changed(subject=[{"name": "x", "digest": {"a": "AA"}}]), FormatError, "lower-case hex"),
        (changed(subject=[{"name": "x", "digest": {"a": 1}}]), FormatError, "lower-case hex"),
        (STATEMENT.encode() + b"\n", FormatError, "canonical"),
    ],
)
def test_what_is_no_statement_is_refused_in_one_line(
    data: bytes, error: type[ProvenanceError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        Statement.decode(data)
    assert "\n" not in str(caught.value)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [{"name": str(n), "digest": {"a": "00"}} for n in range(3)]
    monkeypatch.setattr(dsse, "MAX_SUBJECTS", 2)
    with pytest.raises(TooLargeError, match="3 subjects"):
        Statement.decode(changed(subject=many))
    monkeypatch.setattr(dsse, "MAX_STATEMENT_BYTES", 10)
    with pytest.raises(TooLargeError, match="at most 10"):
        Statement.decode(b"x" * 11)
    with pytest.raises(TooLargeError, match="at most 10"):
        STATEMENT.encode()


def test_a_value_without_canonical_form_is_refused() -> None:
    with pytest.raises(InputError, match="canonical"):
        Statement(STATEMENT.subjects, "x", {"a": float("nan")}).encode()


@given(st.data())
def test_a_flipped_bit_never_gives_a_traceback_or_the_same_statement(data: st.DataObject) -> None:
    encoded = bytearray(STATEMENT.encode())
    at = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[at // 8] ^= 1 << at % 8
    with contextlib.suppress(FormatError):
        assert Statement.decode(bytes(encoded)) != STATEMENT


def test_the_bundle_holds_payload_signature_and_hint() -> None:
    document = json.loads(sigstore_bundle(b"payload", b"\x00sig", "ab"))
    assert document == {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "ab"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(b"payload").decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"keyid": "", "sig": base64.b64encode(b"\x00sig").decode()}],
        },
    }


def test_the_hint_is_the_digest_of_the_pem_text() -> None:
    assert key_hint(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
