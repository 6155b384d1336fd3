"""Whether a text is canonical: the answer in two steps is that of RFC 8785 alone."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provenance.errors import FormatError, InputError
from provenance.formats.json_text import canonical_json, is_canonical, parse_json

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    ["", "\x7f", "\u2028", "\U0001f600"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def by_rfc8785_alone(data: bytes) -> bool:
    try:
        return canonical_json(parse_json(data, "text")) == data
    except (FormatError, InputError):
        return False


def answer(data: bytes) -> bool:
    try:
        return is_canonical(parse_json(data, "text"), data)
    except (FormatError, InputError):
        return False


@given(VALUES, st.booleans(), st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")]))
@example({"\U0001f600": 1, "\ufb01": 2}, True, False, (",", ":"))
@example([1e-7, 1e21, 1e16, 5e-324, 1.0, -0.0, 123456789012345680.0], False, False, (",", ":"))
def test_however_a_value_is_written(
    value: object, sort: bool, ascii_only: bool, separators: tuple[str, str]
) -> None:
    written = json.dumps(value, sort_keys=sort, ensure_ascii=ascii_only, separators=separators)
    canonical = canonical_json(value)
    assert answer(canonical)
    assert answer(written.encode()) == by_rfc8785_alone(written.encode())


@given(st.binary(min_size=8, max_size=8))
def test_however_a_number_is_written(data: bytes) -> None:
    (number,) = struct.unpack("<d", data)
    for text in (repr(number), f"{number:.17g}", f"{number:f}", f"{number:e}"):
        document = f'{{"a":{text}}}'.encode()
        assert answer(document) == by_rfc8785_alone(document)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "-0",
        "-0.0",
        "1.0",
        "1e5",
        "1E5",
        '"\\ud800"',
        '"\\u001F"',
        '"\\/"',
        "9007199254740993",
    ],
)
def test_what_is_written_otherwise_is_not_canonical(text: str) -> None:
    document = f'{{"a":{text}}}'.encode()
    assert not answer(document)
    assert not by_rfc8785_alone(document)
