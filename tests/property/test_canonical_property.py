"""That canonical form which is seen quickly is canonical: against RFC 8785's encoder itself."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provenance.errors import FormatError, InputError
from provenance.formats.json_text import canonical_json, canonical_size, parse_canonical

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def is_canonical(data: bytes) -> bool:
    value, _ = parse_canonical(data, "x")
    try:
        return canonical_json(value) == data
    except InputError:
        return False


@given(values, st.booleans(), st.booleans())
@example({"\ue000": 1, "\U00010000": 2}, True, False)  # by UTF-16 the second comes first
@example({"\ud7ff": 1, "z": [0.5, -3]}, True, False)
@example([1e-5, 1e16, 5e-324, -0.0, 1.0, 2**53, -(2**53) + 1], True, False)
def test_what_is_seen_quickly_is_canonical(value: object, compact: bool, ascii_only: bool) -> None:
    separators = (",", ":") if compact else (", ", ": ")
    text = json.dumps(value, sort_keys=True, separators=separators, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return
    read, quick = parse_canonical(data, "x")
    assert not quick or (is_canonical(data) and read == json.loads(text))


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4))
@example({"a": [1e20, -1e20, 1e21, 1e-7, 1e-5, 5e-324, 1.0, -0.0, 1e16], "\x01e": "\ue000\x7f"})
def test_a_size_is_that_of_the_canonical_form(value: dict[str, object]) -> None:
    try:
        size = len(canonical_json(value))
    except (InputError, UnicodeEncodeError):  # an integer past 2^53, a lone surrogate
        return
    assert canonical_size(value) == canonical_size(value, size - 1) == size
    assert size <= canonical_size(value, 10 * size) <= 10 * size


@given(st.binary(min_size=8, max_size=8))
def test_however_a_number_is_written(data: bytes) -> None:
    (number,) = struct.unpack("<d", data)
    if math.isfinite(number):
        for text in (repr(number), f"{number:.17g}", f"{number:f}", f"{number:e}"):
            document = f'{{"a":{text}}}'.encode()
            assert not parse_canonical(document, "x")[1] or is_canonical(document)


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="stands twice"):
        parse_canonical(b'{"a":1,"a":1}', "x")


def test_plain_text_is_seen_quickly() -> None:
    plain = {"epoch": 3, "loss": 0.25, "rank": 0, "text": "name — \u00e9"}
    data = canonical_json(plain)
    assert parse_canonical(data, "x") == (plain, True)


@pytest.mark.parametrize("text", [b"NaN", b'{"a":1e400}', b'{"a":-0}', b'{"a":1E5}', b'{"a":1.50}'])
def test_numbers_of_another_form_are_not(text: bytes) -> None:
    assert not parse_canonical(text, "x")[1]
