"""Elements of a sequence or map-style dataset as canonical bytes.

WARNING: FROZEN FORMAT. A change of any byte makes old dataset digests unverifiable. No I/O, no
clock, no randomness.

An element is walked depth first, the entries of a dict by the UTF-8 bytes of their keys. Each
node is hashed as a tensor (header and elements, see arrays.py), one after another; its name is
the RFC 8785 JSON of the path to it, such as ``[0,"pixels"]``, and ``[]`` for the element itself.

===============  =========================================================================
dtype            node
===============  =========================================================================
F64 ... C128     an array; also int (I64), float (F64) and bool (BOOL) as scalars
UTF8, BYTES      str, bytes: the length (8 bytes little-endian), then the bytes
NULL             None: no bytes
LIST, DICT       tuple or list, dict: no bytes, shape ``[length]``; what it holds follows
===============  =========================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    RawTensor,
    canonical,
    is_array,
    raw_bytes,
    raw_float,
    raw_tensor,
    raw_text,
    type_name,
    var_chunks,
)
from provenance.fingerprint.hashers import HashFactory

MAX_DEPTH: Final = 32

Path = tuple[int | str, ...]


def element_digest(value: object, index: int, factory: HashFactory) -> tuple[bytes, int]:
    """Digest of one element, and the bytes that were hashed for it, headers left out.

    Args:
        value: An array, number, text, bytes, None, or nested tuples, lists and dicts of them.
        index: Its place in the dataset, for the message.

    Raises:
        InputError: a value without canonical bytes; the message names index, path and type.
    """
    hasher = factory.new()
    total = 0
    try:
        for node in _nodes(value, ()):
            node.feed(hasher.update)
            total += node.nbytes
    except InputError as error:
        raise InputError(f"data item {index}: {error}") from error
    return hasher.digest(), total


def _nodes(value: object, path: Path) -> Iterator[RawTensor]:
    name = _name(path)
    if value is None:
        yield raw_bytes(name, "NULL", (), ())
    elif isinstance(value, bool):
        yield raw_bytes(name, "BOOL", (), [bytes([value])])
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise InputError(f"at {name}: found {value}, expected an integer of 64 bits")
        yield raw_bytes(name, "I64", (), [struct.pack("<q", value)])
    elif isinstance(value, float):
        yield raw_float(name, value)
    elif isinstance(value, str):
        yield raw_text(name, [value], ())
    elif isinstance(value, bytes):
        yield raw_bytes(name, "BYTES", (), var_chunks([value]))
    elif isinstance(value, Mapping | list | tuple):
        if len(path) >= MAX_DEPTH:
            raise InputError(f"at {name}: nested deeper than {MAX_DEPTH} levels")
        items: Iterable[tuple[int | str, object]] = enumerate(value)
        if isinstance(value, Mapping):
            keys = sorted(value, key=lambda key: _key(name, key))
            items = ((str(key), value[key]) for key in keys)
        kind = "DICT" if isinstance(value, Mapping) else "LIST"
        yield raw_bytes(name, kind, (len(value),), ())
        for key, item in items:
            yield from _nodes(item, (*path, key))
    elif is_array(value):
        yield raw_tensor(name, value)
    else:
        raise InputError(
            f"at {name}: found {type_name(value)}, expected arrays, numbers, texts, bytes or None"
        )


def _key(name: str, key: object) -> bytes:
    if not isinstance(key, str):
        raise InputError(f"at {name}: found the key {key!r}, expected a str")
    return key.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=4096)
def _name(path: Path) -> str:
    return canonical(list(path)).decode()
