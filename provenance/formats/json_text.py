"""JSON text: parsing what may be hostile, and writing the canonical form (RFC 8785).

Nesting and the number of values are bounded before the parser runs: three bytes, ``[],``, take
64 of memory, and an object takes more. Python's own guard against nesting, the recursion limit, is
lifted to 100,000 by libraries of this field (py_ecc, which web3 brings, is one), and with
that limit a few kilobytes of brackets overflow the C stack and end the process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple

import rfc8785

from provenance.errors import FormatError, InputError

MAX_DEPTH = 64
MAX_SAFE_INTEGER = 2**53 - 1
# An unclosed string swallows the rest: trying again at each quote in it would be quadratic.
_STRING: Final = r'"(?:[^"\\]++|\\.)*+"?'
_BRACKET_OR_STRING: Final = re.compile(rf"[][{{}}]|{_STRING}", re.DOTALL)
_COMMA_OR_STRING: Final = re.compile(rf",|{_STRING}", re.DOTALL)
_FROM_E000: Final = 0xEE
"""The first byte of such a character in UTF-8."""
# With an exponent, an integral float, or an integer that may be past 2**53.
_ODD_NUMBER: Final = re.compile(
    rb"[:,[]-?[0-9]+(?:(?<=[0-9]{16})|(?:\.[0-9]+)?[eE][-+]?[0-9]+|\.0+)[],}]"
)
_IN_NO_NUMBER: Final = bytes(set(range(256)) - set(b'0123456789+-.eE,:[]}"'))
"""What may go before such a number is looked for: none of it is beside one."""

_LONGER: Final = 17
"""Bytes by which RFC 8785 writes a number with an exponent longer than msgspec: 1e20."""


class Limits(NamedTuple):
    """How much a JSON text may hold: objects and lists together, and commas."""

    containers: int = 1_000_000
    items: int = 8_000_000


DEFAULT_LIMITS: Final = Limits()


def loads(
    data: bytes | bytearray | str,
    *,
    parse_int: Callable[[str], Any] | None = None,
    parse_float: Callable[[str], Any] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Any:
    """``json.loads`` of UTF-8 text nested at most 64 levels deep.

    An object with a key twice is refused: readers differ about which of the two counts. Raises
    ValueError: not JSON, not UTF-8, nested deeper, more than ``limits``, a key twice, or a whole
    number that is too long for Python."""
    text = data if isinstance(data, str) else data.decode("utf-8")
    _check_size(text, limits)
    try:
        return json.loads(
            text, parse_int=parse_int, parse_float=parse_float, object_pairs_hook=_unique
        )
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
        raise ValueError("a whole number of too many digits") from None


def canonical_json(value: object) -> bytes:
    """RFC 8785 bytes of a JSON value; ``InputError`` where it has no canonical form."""
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # it refuses what is no JSON
    except rfc8785.CanonicalizationError as error:
        raise InputError(f"no canonical JSON: {error}") from error


def canonical_size(value: object, enough: int = 0) -> int:
    """How many bytes :func:`canonical_json` gives of a value that has such a form, mostly for a
    tenth of the cost; of one that has at most ``enough``, perhaps a greater number up to that.
    Raises ValueError: it has more lists, objects or values than anybody reads."""
    data = _msgspec()[1](value)
    _check_size(data.decode(), DEFAULT_LIMITS)
    numbers = data.translate(None, _IN_NO_NUMBER)
    if not _ODD_NUMBER.search(numbers):
        return len(data)
    most = len(data) + _LONGER * numbers.count(b"e")
    return most if most <= enough else len(canonical_json(value))


def parse_canonical(data: bytes, what: str) -> tuple[Any, bool]:
    """Untrusted JSON text as RFC 8785 writes it, or ``FormatError``; and whether it is in that form
    for certain, seen at a tenth of the cost where msgspec writes what it read as the same text: no
    number that the two write differently, and no character from U+E000 on, where keys in the order
    of UTF-16 are in another than that of Unicode. A key that stood twice would be missing."""
    try:
        low = data.isascii() or max(data) < _FROM_E000
        if low and data[:1] == b"{" and not _ODD_NUMBER.search(data.translate(None, _IN_NO_NUMBER)):
            _check_size(data.decode(), DEFAULT_LIMITS)
            decode, encode, error = _msgspec()
            with suppress(error):
                value = decode(data)
                if encode(value) == data:
                    return value, True
        return loads(data, parse_int=_integer), False
    except (ValueError, OverflowError) as problem:
        raise FormatError(f"{what} is not JSON: {problem}") from problem


@cache
def _msgspec() -> tuple[Callable[[bytes], Any], Callable[[Any], bytes], type[Exception]]:
    """Its decoder, encoder and error; a trainer, which reads no records, does without."""
    import msgspec

    encode = msgspec.json.Encoder(order="sorted").encode
    return msgspec.json.Decoder().decode, encode, msgspec.DecodeError


def _integer(text: str) -> int | float:
    """RFC 8785 writes a float like 1e17 without a point; past 2**53 it was one."""
    number = int(text)
    return number if abs(number) <= MAX_SAFE_INTEGER else float(number)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key[:60]!r} stands twice in one object")
            seen.add(key)
    return found


def _check_size(text: str, limits: Limits) -> None:
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_brackets(text, limits.containers)
    if len(text) > limits.items < text.count(","):
        _check_commas(text, limits.items)


def _check_brackets(text: str, most: int) -> None:
    depth = opened = 0
    for match in _BRACKET_OR_STRING.finditer(text):
        if match[0] in "[{":
            depth, opened = depth + 1, opened + 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
            if opened > most:
                raise ValueError(f"more than {most} objects and lists")
        elif match[0] in "]}":
            depth -= 1


def _check_commas(text: str, most: int) -> None:
    found = 0
    for match in _COMMA_OR_STRING.finditer(text):
        found += match[0] == ","
        if found > most:
            raise ValueError(f"more than {most} values")
