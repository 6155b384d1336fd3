"""Record bytes against a vector written by hand, and each way a record can be wrong."""

from __future__ import annotations

import decimal
import enum
import fractions
import hashlib
import hmac
import json
import math
import sys
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import FormatError, InputError, TooLargeError, UnknownVersionError
from provenance.formats.json_text import canonical_json, parse_canonical
from provenance.formats.record import (
    MAX_RECORD_BYTES,
    Kind,
    Record,
    normalise,
    record_digest,
    salt_for,
    timestamp,
)

RECORD = Record(
    run=UUID("0192f0c1-2345-7abc-8def-0123456789ab"),
    kind=Kind.METRICS,
    epoch=3,
    rank=0,
    producer=bytes(range(16)),
    seq=7,
    ts="2026-01-02T03:04:05.000006Z",
    salt=b"\x11" * 32,
    body={"metrics": {"loss": 0.5, "acc": 1.0, "big": "9007199254740993", "bad": "NaN"}},
)
# Typed by hand from RFC 8785: keys sorted, no spaces, 1.0 written as 1.
BYTES = (
    b'{"body":{"metrics":{"acc":1,"bad":"NaN","big":"9007199254740993","loss":0.5}},'
    b'"epoch":3,"kind":"metrics","producer":"000102030405060708090a0b0c0d0e0f","rank":0,'
    b'"run":"0192f0c1-2345-7abc-8def-0123456789ab",'
    b'"salt":"1111111111111111111111111111111111111111111111111111111111111111",'
    b'"seq":7,"ts":"2026-01-02T03:04:05.000006Z","v":1}'
)


def test_vector() -> None:
    assert RECORD.encode() == BYTES
    assert record_digest(BYTES) == hashlib.sha256(BYTES).digest()
    decoded = Record.decode(BYTES)
    assert decoded.encode() == BYTES
    assert decoded.order == ("2026-01-02T03:04:05.000006Z", RECORD.producer.hex(), 7)


def test_salt_is_hmac_of_producer_and_seq() -> None:
    expected = hmac.new(b"k" * 32, b"p" * 16 + b"\0\0\0\0\0\0\1\2", hashlib.sha256).digest()
    assert salt_for(b"k" * 32, b"p" * 16, 258) == expected


def test_timestamp_keeps_microseconds() -> None:
    assert timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"


def changed(**fields: Any) -> bytes:
    raw = json.loads(BYTES)
    raw.update(fields)
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("data", "error", "problem"),
    [
        (b"", FormatError, "not JSON"),
        (b"[1]", FormatError, "expected an object"),
        (b"[" * 100_000, FormatError, "nested deeper"),
        (b"\xff", FormatError, "not JSON"),
        (b"1" * 400, FormatError, "not JSON"),
        (changed(v=2), UnknownVersionError, "version 2"),
        (changed(extra=1), FormatError, "record: extra: unknown key"),
        (changed(kind="gossip"), FormatError, "gossip"),
        (changed(run="nope"), FormatError, "record"),
        (changed(rank="0"), FormatError, "rank: found '0', expected a whole"),
        (changed(seq=True), FormatError, "seq: found true, expected a whole"),
        (changed(salt="11"), FormatError, "salt: found '11', expected 64"),
        (changed(producer="AA" * 16), FormatError, "producer: found .* expected 32"),
        (changed(body=[]), FormatError, "body: found a list"),
        (BYTES + b" ", FormatError, "canonical"),
        (BYTES.replace(b'"rank":0', b'"rank": 0'), FormatError, "canonical"),
        (BYTES.replace(b'"acc":1', b'"acc":1.0'), FormatError, "canonical"),
        (BYTES.replace(b'"acc":1', b'"acc":1,"acc":1'), FormatError, "twice"),
        (b"x" * (MAX_RECORD_BYTES + 1), TooLargeError, "at most"),
    ],
)
def test_decode_refuses(data: bytes, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        Record.decode(data)


def test_missing_field_is_named() -> None:
    raw = json.loads(BYTES)
    del raw["salt"]
    with pytest.raises(FormatError, match="salt: found nothing, expected 64"):
        Record.decode(canonical_json(raw))


@given(st.integers(0, len(BYTES) * 8 - 1))
def test_any_flipped_bit_is_another_record_or_refused(bit: int) -> None:
    data = bytearray(BYTES)
    data[bit // 8] ^= 1 << bit % 8
    try:
        decoded = Record.decode(bytes(data))
    except FormatError:
        return
    assert decoded.encode() == bytes(data) != BYTES


def test_large_floats_are_written_without_a_point_and_read_back() -> None:
    body = normalise({"loss": 1e17, "tiny": 5e-324, "huge": 1e300})
    assert isinstance(body, dict)
    record = Record(
        RECORD.run, Kind.METRICS, 1, 0, RECORD.producer, 0, RECORD.ts, RECORD.salt, body
    )
    data = record.encode()
    assert b'"huge":1e+300,"loss":100000000000000000,"tiny":5e-324' in data
    assert Record.decode(data).encode() == data


def test_brackets_in_strings_do_not_nest() -> None:
    text = '"' + "[" * 100 + '\\"' + "{" * 100 + '"'
    assert parse_canonical(text.encode(), "x")[0] == "[" * 100 + '"' + "{" * 100
    assert parse_canonical(("[" * 64 + "]" * 64).encode(), "x")[0]
    with pytest.raises(FormatError, match="x is not JSON: nested deeper than 64"):
        parse_canonical(("[" * 65 + "]" * 65).encode(), "x")


class Scheduler(enum.StrEnum):
    LINEAR = "linear"


class Old(str, enum.Enum):  # noqa: UP042  what prints as Old.LOW
    LOW = "low"


class Quiet(str):
    def __str__(self) -> str:
        raise RuntimeError("no")


class ArrayKey:
    """As a tensor of two elements, which torch can hash."""

    dtype = "float32"

    def item(self) -> Any:
        raise KeyError("two elements")

    def tolist(self) -> Any:
        return [1, 2]


class Unreadable(dict[str, int]):
    """As OmegaConf's mapping with a value that is missing."""

    def items(self) -> Any:
        raise KeyError("missing")


class Scalar:
    """As NumPy and torch scalars convert."""

    def __init__(self, value: object) -> None:
        self.value = value

    def item(self) -> object:
        return self.value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Scheduler.LINEAR, "linear"),
        ({Scheduler.LINEAR: Old.LOW, np.int64(3): 1}, {"linear": "low", "3": 1}),
        (np.array([5.0]), [5.0]),
        (np.ma.masked_array([1.0, 2.0], [True, False]), [None, 2.0]),
        (np.ma.masked_array([1.0], [True]).mean(), None),
        (np.array(2.5), 2.5),
        (np.longdouble(1.5), 1.5),
        (fractions.Fraction(1, 4), 0.25),
        (decimal.Decimal("0.1"), 0.1),
        (Quiet("text"), "text"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (2**53 - 1, 2**53 - 1),
        (2**53, str(2**53)),
        (-(2**60), str(-(2**60))),
        (True, True),
        ((1, 2), [1, 2]),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        ({3, 1}, [1, 3]),
        (Scalar(1.5), 1.5),
        (Scalar(math.nan), "NaN"),
        ("\ud800", "\\ud800"),
    ],
)
def test_normalise(value: object, expected: object) -> None:
    assert normalise(value) == expected
    canonical_json(normalise(value))


def test_normalise_names_the_path() -> None:
    with pytest.raises(InputError, match=r"metrics\.a\[1\]: found a value of type object"):
        normalise({"a": [1, object()]}, "metrics")
    with pytest.raises(InputError, match="two keys that both read '1'"):
        normalise({1: 0, "1": 0})
    with pytest.raises(InputError, match="key of type tuple"):
        normalise({(1,): 0})
    with pytest.raises(InputError, match=r"^metrics\.a: a whole number of too many digits$"):
        normalise({"a": 10**6000}, "metrics")
    with pytest.raises(InputError, match=r"^metrics: a whole number of too many digits$"):
        normalise({10**6000: 1}, "metrics")
    with pytest.raises(
        InputError, match=r"^metrics\.a: found a Unreadable that cannot be read \(K"
    ):
        normalise({"a": Unreadable()}, "metrics")
    with pytest.raises(InputError, match="key of type list"):
        normalise({ArrayKey(): 0})
    with pytest.raises(InputError, match="found a value of type Fraction"):
        normalise(fractions.Fraction(10**400))
    deep: Any = 0
    for _ in range(40):
        deep = [deep]
    with pytest.raises(InputError, match="nested deeper than 32"):
        normalise(deep)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_whatever_is_normalised_round_trips(body: dict[str, Any]) -> None:
    try:
        fields = normalise(body)
    except InputError:
        return
    assert isinstance(fields, dict)
    record = Record(
        RECORD.run, Kind.CONFIG, None, 0, RECORD.producer, 0, RECORD.ts, RECORD.salt, fields
    )
    data = record.encode()
    assert Record.decode(data).encode() == data


def test_nesting_is_bounded_whatever_the_recursion_limit() -> None:
    """A library in the process may have lifted it past what the C stack holds."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        with pytest.raises(FormatError, match="nested deeper"):
            Record.decode(b'{"body":' + b"[" * 90_000)
    finally:
        sys.setrecursionlimit(limit)
