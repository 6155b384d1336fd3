"""Recursive Length Prefix: Ethereum's encoding of byte strings and lists of them.

Strict, as the Yellow Paper (appendix B) and go-ethereum's decoder are: one encoding per value,
nothing after it.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from provenance.errors import FormatError, TooLargeError, TrailingBytesError, TruncatedError

Item: TypeAlias = "bytes | tuple[Item, ...]"
"""A string or a list of items."""

MAX_DEPTH: Final = 16
"""Lists within lists. A signed transaction has 4; inline trie nodes nest at most 16 deep."""
_SHORT: Final = 55
_LIST: Final = 0xC0


def decode(raw: bytes, what: str, limit: int) -> Item:
    """The one item that ``raw`` is, at most ``limit`` bytes; or ``FormatError``, about ``what``."""
    if len(raw) > limit:
        raise TooLargeError(f"{what} of {len(raw)} bytes, at most {limit}")
    item, end = _item(raw, 0, len(raw), what, 0)
    if end != len(raw):
        raise TrailingBytesError(f"{what}: {len(raw) - end} bytes after its end")
    return item


def _item(raw: bytes, at: int, end: int, what: str, depth: int) -> tuple[Item, int]:
    if at >= end:
        raise TruncatedError(f"{what}: it ends where an item should begin")
    prefix = raw[at]
    if prefix < 0x80:
        return raw[at : at + 1], at + 1
    is_list = prefix >= _LIST
    size, start = prefix - (_LIST if is_list else 0x80), at + 1
    if size > _SHORT:
        digits = raw[start : start + size - _SHORT]
        start += size - _SHORT
        if start > end:
            raise TruncatedError(f"{what}: it ends inside a length")
        size = int.from_bytes(digits, "big")
        if size <= _SHORT or not digits[0]:
            raise FormatError(f"{what}: a length that has a shorter encoding")
    stop = start + size
    if stop > end:
        raise TruncatedError(f"{what}: it ends inside an item of {size} bytes")
    if not is_list:
        if size == 1 and raw[start] < 0x80:
            raise FormatError(f"{what}: a byte that has a shorter encoding")
        return raw[start:stop], stop
    if depth == MAX_DEPTH:
        raise TooLargeError(f"{what}: lists nested over {MAX_DEPTH} deep")
    items = []
    at = start
    while at < stop:
        item, at = _item(raw, at, stop, what, depth + 1)
        items.append(item)
    return tuple(items), stop


def encode(item: Item) -> bytes:
    """A byte string or a list of items as RLP (Yellow Paper appendix B)."""
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _head(0x80, len(item)) + item
    body = b"".join(map(encode, item))
    return _head(0xC0, len(body)) + body


def _head(base: int, size: int) -> bytes:
    if size < 56:
        return bytes([base + size])
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(digits)]) + digits


def encode_index(index: int) -> bytes:
    """A non-negative integer as RLP: the key of a transaction or receipt in its trie."""
    return encode(index.to_bytes((index.bit_length() + 7) // 8, "big"))
