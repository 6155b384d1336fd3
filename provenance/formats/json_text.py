"""JSON text: parsing what may be hostile, and writing the canonical form (RFC 8785).

Nesting is bounded before the parser runs. Python's own guard, the recursion limit, is
lifted to 100,000 by libraries of this field (py_ecc, which web3 brings, is one), and with
that limit a few kilobytes of brackets overflow the C stack and end the process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import rfc8785

from provenance.errors import FormatError, InputError

MAX_DEPTH = 64
MAX_SAFE_INTEGER = 2**53 - 1
# An unclosed string swallows the rest: trying again at each quote in it would be quadratic.
_BRACKET_OR_STRING = re.compile(r'[][{}]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def loads(
    data: bytes | bytearray | str,
    *,
    parse_int: Callable[[str], Any] | None = None,
    parse_float: Callable[[str], Any] | None = None,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """``json.loads`` of UTF-8 text nested at most 64 levels deep.

    Args:
        object_pairs_hook: None refuses an object with a key twice: readers differ about which
            of the two counts.

    Raises:
        ValueError: Not JSON, not UTF-8, nested deeper, or a key twice.
    """
    text = data if isinstance(data, str) else data.decode("utf-8")
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    return json.loads(
        text,
        parse_int=parse_int,
        parse_float=parse_float,
        object_pairs_hook=object_pairs_hook or _unique,
    )


def canonical_json(value: object) -> bytes:
    """RFC 8785 bytes of a JSON value.

    Raises:
        InputError: The value has no canonical form.
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise InputError(f"no canonical JSON: {error}") from error


def parse_json(data: bytes | str, what: str) -> Any:
    """Parse untrusted JSON text as RFC 8785 writes it.

    Raises:
        FormatError: Not JSON, not UTF-8, or nested deeper than 64 levels.
    """
    try:
        return loads(data, parse_int=_integer)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{what} is not JSON: {error}") from error


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


def _check_depth(text: str) -> None:
    depth = 0
    for match in _BRACKET_OR_STRING.finditer(text):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
