"""The one strict reader: what each getter takes, what it refuses, and in which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest

from provenance.errors import (
    FormatError,
    InputError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.formats.fields import Fields

RUN = "0199c2b0-0000-7000-8000-000000000001"
LETTERS = re.compile("[a-z]+")


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def one(value: object) -> Fields:
    return Fields({"k": value}, "f.json")


GETTERS: dict[str, Callable[[Fields], object]] = {
    "text": lambda f: f.text("k"),
    "letters": lambda f: f.matching("k", LETTERS, "letters"),
    "one of": lambda f: f.one_of("k", ("a", "b")),
    "enum": lambda f: f.enum("k", Colour),
    "integer": lambda f: f.integer("k"),
    "signed": lambda f: f.integer("k", -3, 3),
    "number": lambda f: f.number("k"),
    "boolean": lambda f: f.boolean("k"),
    "hex": lambda f: f.hex("k", 2),
    "uuid": lambda f: f.uuid("k"),
    "maybe": lambda f: f.maybe("k", f.integer),
    "optional": lambda f: f.optional("k", f.integer),
    "object": lambda f: f.object("k", "a").raw,
    "mapping": lambda f: f.mapping("k", Fields.integer),
    "by hex": lambda f: f.by_hex("k", 1, Fields.integer),
    "items": lambda f: f.items("k", Fields.integer),
    "objects": lambda f: [item.text("a") for item in f.objects("k", "a")],
    "hashes": lambda f: f.hashes("k", 2),
}


@pytest.mark.parametrize(
    ("getter", "value", "read"),
    [
        ("text", "", ""),
        ("letters", "ab", "ab"),
        ("one of", "b", "b"),
        ("enum", "blue", Colour.BLUE),
        ("integer", 0, 0),
        ("integer", 2**63 - 1, 2**63 - 1),
        ("signed", -3, -3),
        ("number", 1, 1.0),
        ("number", -2.5, -2.5),
        ("boolean", False, False),
        ("hex", "00ff", b"\x00\xff"),
        ("uuid", RUN, UUID(RUN)),
        ("maybe", None, None),
        ("maybe", 3, 3),
        ("optional", 3, 3),
        ("object", {}, {}),
        ("object", {"a": None}, {"a": None}),
        ("mapping", {"x": 1, "y": 2}, {"x": 1, "y": 2}),
        ("by hex", {"0a": 1}, {b"\n": 1}),
        ("items", [], ()),
        ("items", [1, 2], (1, 2)),
        ("objects", [{"a": "x"}], ["x"]),
        ("hashes", ["0000", "ffff"], (b"\0\0", b"\xff\xff")),
    ],
)
def test_a_getter_returns_the_value(getter: str, value: object, read: object) -> None:
    got = GETTERS[getter](one(value))
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    ("getter", "value", "message"),
    [
        ("text", 1, "k: found 1, expected text"),
        ("text", None, "k: found null, expected text"),
        ("text", True, "k: found true, expected text"),
        ("text", ["x"] * 1000, "k: found a list, expected text"),
        ("text", {"x": 1}, "k: found an object, expected text"),
        ("letters", "ab\n", r"k: found 'ab\n', expected letters"),
        ("letters", 3, "k: found 3, expected letters"),
        ("one of", "c", "k: found 'c', expected one of a, b"),
        ("one of", ["a"], "k: found a list, expected one of a, b"),
        ("enum", "green", "k: found 'green', expected one of red, blue"),
        ("enum", 1, "k: found 1, expected text"),
        ("integer", True, "k: found true, expected a whole number from 0"),
        ("integer", 1.0, "k: found 1.0, expected a whole number from 0"),
        ("integer", "1", "k: found '1', expected a whole number from 0"),
        ("integer", -1, "k: found -1, expected a whole number from 0"),
        ("integer", 2**63, f"k: found {2**63}, expected a whole number from 0"),
        ("signed", 4, "k: found 4, expected a whole number from -3 to 3"),
        ("number", True, "k: found true, expected a number"),
        ("number", "1", "k: found '1', expected a number"),
        ("number", float("nan"), "k: found nan, expected a number up to 1e+18"),
        ("number", float("inf"), "k: found inf, expected a number up to 1e+18"),
        ("number", -(10**19), f"k: found -{10**19}, expected a number up to 1e+18"),
        ("boolean", 1, "k: found 1, expected true or false"),
        ("hex", "00FF", "k: found '00FF', expected 4 lower-case hex digits"),
        ("hex", "00 ff", "k: found '00 ff', expected 4 lower-case hex digits"),
        ("hex", "00", "k: found '00', expected 4 lower-case hex digits"),
        ("hex", "zzzz", "k: found 'zzzz', expected 4 lower-case hex digits"),
        ("hex", 1, "k: found 1, expected 4 lower-case hex digits"),
        ("uuid", "x", "k: found 'x', expected a UUID"),
        ("uuid", 1, "k: found 1, expected text"),
        ("uuid", RUN.replace("-", ""), f"k: found '{RUN.replace('-', '')}', expected {RUN}"),
        ("maybe", "x", "k: found 'x', expected a whole number from 0"),
        ("optional", None, "k: found null, expected a whole number from 0"),
        ("object", [], "k: found a list, expected an object"),
        ("object", {"a": 1, "c": 2, "b": 3}, "k.b: unknown key, expected a"),
        ("mapping", {"x": -1}, "k.x: found -1, expected a whole number from 0"),
        ("by hex", {"0A": 1}, "k: found the key '0A', expected 2 lower-case hex digits"),
        ("by hex", {"0a0a": 1}, "k: found the key '0a0a', expected 2 lower-case hex digits"),
        ("by hex", {"0a": "x"}, "k.0a: found 'x', expected a whole number from 0"),
        ("items", {}, "k: found an object, expected a list"),
        ("items", [1, "x"], "k[1]: found 'x', expected a whole number from 0"),
        ("objects", [{"a": "x"}, 1], "k[1]: found 1, expected an object"),
        ("objects", [{}], "k[0].a: found nothing, expected text"),
        ("objects", [{"a": "x", "b": 1}], "k[0].b: unknown key, expected a"),
        ("hashes", ["0000", "x"], "k[1]: found 'x', expected 4 lower-case hex digits"),
    ],
)
def test_a_getter_names_what_is_wrong(getter: str, value: object, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        GETTERS[getter](one(value))
    assert str(caught.value) == f"f.json: {message}"


@pytest.mark.parametrize("getter", sorted(GETTERS.keys() - {"optional"}))
def test_a_missing_key_is_named(getter: str) -> None:
    with pytest.raises(FormatError, match=r"^f\.json: k: found nothing, expected "):
        GETTERS[getter](Fields({}, "f.json"))
    assert GETTERS["optional"](Fields({}, "f.json")) is None


def test_a_message_is_short_and_on_one_line() -> None:
    for fields in (one("x\n" * 10_000), one({"\n" * 10_000: 1}), Fields({}, "f.json")):
        with pytest.raises(FormatError) as caught:
            fields.mapping("k", Fields.text)
        assert len(str(caught.value)) < 300
        assert "\n" not in str(caught.value)


def test_nested_paths_name_every_step() -> None:
    top = Fields({"a": {"b": [{"c": ["x"]}]}}, "f.json")
    item = top.object("a").objects("b", "c")[0]
    with pytest.raises(FormatError, match=r"^f\.json: a\.b\[0\]\.c\[0\]: found 'x', expected"):
        item.items("c", Fields.integer)


def test_the_error_is_the_callers_at_every_depth() -> None:
    top = Fields.of({"a": [{"b": 1}]}, "f.json", error=InputError)
    with pytest.raises(InputError, match=r"^f\.json: a\[0\]\.b: found 1, expected text$"):
        top.objects("a", "b")[0].text("b")
    values: list[object] = [[], 1, None, "x"]
    for value in values:
        with pytest.raises(InputError, match=r"^f\.json: found .*, expected an object$"):
            Fields.of(value, "f.json", error=InputError)


def test_private_values_stay_out_of_messages() -> None:
    readers: list[Callable[[Fields], Any]] = [
        lambda f: f.integer("k"),
        lambda f: f.hex("k", 1),
        lambda f: f.version(1, "k"),
        lambda f: f.items("l", Fields.integer),
        lambda f: f.by_hex("o", 1, Fields.text),
    ]
    document = {"k": "secret", "l": ["secret"], "o": {"secret": "secret"}}
    for read in readers:
        with pytest.raises(FormatError) as caught:
            read(Fields.of(document, "run.key", private=True))
        assert "secret" not in str(caught.value)
    with pytest.raises(FormatError) as caught:
        Fields.parse(b'{"secret": 1, "secret": 2}', "run.key", private=True)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "f.json is not JSON: "),
        (b"\xff", "f.json is not JSON: "),
        (b'{"a":1,"a":2}', "f.json is not JSON: key 'a' stands twice"),
        (b"[" * 65 + b"]" * 65, "f.json is not JSON: nested deeper than 64 levels"),
        (b"[]", "f.json: found a list, expected an object"),
        (b"true", "f.json: found true, expected an object"),
    ],
)
def test_text_that_is_no_object(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=f"^{re.escape(message)}"):
        Fields.parse(data, "f.json")
    with pytest.raises(FormatError, match=f"^{re.escape(message)}"):
        Fields.parse_canonical(data, "f.json", 1, limit=1000)


@pytest.mark.parametrize("value", [2, "1", True, 1.0, None, "x" * 5000])
def test_another_version(value: object) -> None:
    with pytest.raises(UnknownVersionError, match=r"^f\.json: v: found version .{1,62}, expected"):
        Fields({"v": value}, "f.json").version(1)
    with pytest.raises(UnknownVersionError, match="found no version, expected"):
        Fields({}, "f.json").version("https://x", "_type")
    Fields({"_type": "https://x"}, "f.json").version("https://x", "_type")


def test_canonical_text() -> None:
    def read(data: bytes | str) -> Fields:
        return Fields.parse_canonical(data, "f.json", 1, limit=40)

    assert read(b'{"a":1e+22,"v":1}').raw == {"a": 1e22, "v": 1}
    assert read('{"a":100000000000000000,"v":1}').number("a") == 1e17
    for data in (b'{"v": 1}', b'{"v":1,"a":1}', b'{"a":1.0,"v":1}', b'{"a":"\\u0061","v":1}'):
        with pytest.raises(FormatError, match="canonical form"):
            read(data)
    with pytest.raises(FormatError, match="no canonical JSON"):
        read(b'{"a":NaN,"v":1}')
    with pytest.raises(UnknownVersionError):
        read(b'{ "v": 2 }')
    with pytest.raises(TooLargeError, match="41 bytes, at most 40"):
        read(b" " * 41)
