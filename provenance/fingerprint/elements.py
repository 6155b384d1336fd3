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
UTF8, BYTES      str, bytes: the length (8 bytes little-endian), then the bytes; an array of
                 them with its shape: all lengths, then all bytes
NULL             None: no bytes
LIST, DICT       tuple, list or array of objects; dict: no bytes, shape ``[length]``; what it
                 holds follows. A structured array is the dict of its fields
TS, DUR, D32,    datetime, timedelta, date, time, Decimal as in tables.py, and arrays of
TIME, DECIMAL    datetime64 and timedelta64: 8 bytes each, NaT as -2**63
===============  =========================================================================

A picture of Pillow is its array; in a mode whose bytes alone do not say what they show (a
palette, CMYK, HSV, ...) it is the dict of its mode, palette and pixels.
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import (
    RawTensor,
    canonical,
    encode_text,
    from_package,
    is_array,
    raw_bytes,
    raw_tensor,
    raw_text,
    small_tensor,
    tensor_header,
    type_name,
    var_chunks,
)
from provenance.fingerprint.data.zones import time_type, zone_name
from provenance.fingerprint.hashers import HashFactory

MAX_DEPTH: Final = 32

Path = tuple[int | str, ...]
Chunk = Any
"""Bytes, a buffer, or a `RawTensor` that is read when its turn comes."""

_MANY: Final = 8
"""A list of so many whole numbers, or floats, is written in one piece."""
_MOST: Final = 4096
"""Of longer lists no headers are kept."""
_PLAIN_MODES: Final = frozenset({"1", "L", "LA", "RGB", "RGBA", "I", "F", "I;16"})
_UNIX: Final = dt.datetime(1970, 1, 1)


def element_hasher(factory: HashFactory) -> Callable[[object, int], tuple[bytes, int]]:
    """A function from an element and its place in the dataset to its digest and the bytes that were
    hashed for it, headers left out; for one thread.

    An element is an array, picture, number, text, bytes, date, time, None, or nested tuples, lists
    and dicts of them. The function raises InputError, which names place, path and type, of a value
    without canonical bytes.
    """
    short = factory.one_by_one()

    def digest(value: object, index: int) -> tuple[bytes, int]:
        chunks: list[Chunk] = []
        try:
            total = _write(value, (), chunks)
            if not any(isinstance(chunk, RawTensor) for chunk in chunks):
                return short(b"".join(chunks)), total
            hasher = factory.new(total)
            for chunk in chunks:
                for piece in chunk.chunks() if isinstance(chunk, RawTensor) else (chunk,):
                    hasher.update(piece)
        except InputError as error:
            raise InputError(f"data item {index}: {error}") from error
        return hasher.digest(), total

    return digest


def element_bytes(value: object, where: str, path: Path = ()) -> bytes:
    """The bytes whose hash is an element's digest; ``where`` it is, for the message. ``path``: of
    what lies in an element, the way to it."""
    chunks: list[Chunk] = []
    try:
        _write(value, path, chunks)
        return b"".join(
            b"".join(chunk.chunks()) if isinstance(chunk, RawTensor) else chunk for chunk in chunks
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _write(value: Any, path: Path, out: list[Chunk]) -> int:
    """Append the nodes of ``value``; bytes of their elements."""
    if value is None:
        out.append(node_head(path, "NULL", ()))
        return 0
    if isinstance(value, str):
        data = encode_text(value, f"tensor {_name(path)!r}")
        out += (node_head(path, "UTF8", ()), struct.pack("<q", len(data)), data)
        return 8 + len(data)
    if isinstance(value, bool):
        out.append(node_head(path, "BOOL", ()) + bytes((value,)))
        return 1
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise InputError(f"at {_name(path)}: found {value}, expected an integer of 64 bits")
        out.append(node_head(path, "I64", ()) + struct.pack("<q", value))
        return 8
    if isinstance(value, float):
        out.append(node_head(path, "F64", ()) + struct.pack("<d", value))
        return 8
    if isinstance(value, list | tuple):
        return _write_list(value, path, out)
    if isinstance(value, Mapping):
        return _write_dict(value, path, out)
    try:
        small = small_tensor(value)
    except RuntimeError as error:  # a nested tensor has no shape
        raise InputError(
            f"at {_name(path)}: {type_name(value)} does not give its elements: {error}"
        ) from error
    if small is not None:
        dtype, shape, nbytes, elements = small
        out.append(node_head(path, dtype, shape))
        if nbytes:  # torch's memory is copied: a lazy dict keeps no tensor that it gave
            out.append(elements if hasattr(elements, "dtype") else bytes(elements))
        return nbytes
    return _write_rare(value, path, out)


def _write_list(value: Any, path: Path, out: list[Chunk]) -> int:
    count = len(value)
    if len(path) >= MAX_DEPTH:
        raise InputError(f"at {_name(path)}: nested deeper than {MAX_DEPTH} levels")
    out.append(node_head(path, "LIST", (count,)))
    if count >= _MANY and len(types := set(map(type, value))) == 1:
        code = {int: "q", float: "d"}.get(types.pop())
        if code is not None:
            try:
                packed = struct.pack(f"<{count}{code}", *value)
            except struct.error:  # item by item, to name it
                pass
            else:
                heads = _item_heads(path, count, "I64" if code == "q" else "F64")
                pieces = [packed[at : at + 8] for at in range(0, 8 * count, 8)]
                pairs = zip(heads, pieces, strict=False)
                out.append(b"".join([half for pair in pairs for half in pair]))
                return 8 * count
    return sum([_write(item, (*path, index), out) for index, item in enumerate(value)])


def _write_dict(value: Mapping[Any, Any], path: Path, out: list[Chunk]) -> int:
    if len(path) >= MAX_DEPTH:
        raise InputError(f"at {_name(path)}: nested deeper than {MAX_DEPTH} levels")
    keys = sorted(value, key=lambda key: _key(path, key))
    out.append(node_head(path, "DICT", (len(value),)))
    return sum([_write(value[key], (*path, str(key)), out) for key in keys])


def _write_rare(value: Any, path: Path, out: list[Chunk]) -> int:
    name = _name(path)
    if isinstance(value, bytes):
        return _raw(raw_bytes(name, "BYTES", (), var_chunks([value])), out)
    if isinstance(value, complex) and not hasattr(value, "dtype"):
        return _raw(raw_bytes(name, "C128", (), [struct.pack("<2d", value.real, value.imag)]), out)
    if isinstance(value, dt.date | dt.time | dt.timedelta):
        return _raw(_moment(name, value), out)
    if isinstance(value, decimal.Decimal):
        from provenance.fingerprint.data.arrow import decimal_bytes

        if not value.is_finite():
            raise InputError(f"at {name}: found {value}, expected a finite Decimal")
        return _raw(raw_bytes(name, "DECIMAL", (), var_chunks([decimal_bytes(value)])), out)
    if from_package(value, "PIL") and hasattr(value, "getpalette"):
        if value.mode not in _PLAIN_MODES:
            palette = value.palette
            colours = None if palette is None else [palette.mode, bytes(value.getpalette(None))]
            pixels = _pixels(value)
            return _write_dict(
                {"mode": value.mode, "palette": colours, "pixels": pixels}, path, out
            )
        return _raw(raw_tensor(name, _pixels(value)), out)
    if not is_array(value):
        raise InputError(
            f"at {name}: found {type_name(value)}, expected arrays, numbers, texts, bytes, dates"
            " or None"
        )
    return _write_array(value, path, out)


def _write_array(value: Any, path: Path, out: list[Chunk]) -> int:
    kind, name = getattr(value.dtype, "kind", "") if hasattr(value, "dtype") else "", _name(path)
    if from_package(value, "numpy.ma"):
        mask = value.mask
        if getattr(mask, "any", bool)():
            return _write_dict({"mask": mask, "values": value.filled(0)}, path, out)
        value = value.data
    if kind in ("U", "T"):
        return _raw(raw_text(name, value.reshape(-1).tolist(), tuple(value.shape)), out)
    if kind == "S":
        items = var_chunks(value.reshape(-1).tolist())
        return _raw(raw_bytes(name, "BYTES", tuple(value.shape), items), out)
    if kind == "M" or kind == "m":
        dtype, integers = moments(value)
        return _raw(raw_tensor(name, integers)._replace(dtype=dtype), out)
    if kind == "V" and value.dtype.names:
        return _write_dict({field: value[field] for field in value.dtype.names}, path, out)
    if kind == "O" and value.ndim:
        return _write_list(value.tolist(), path, out)
    return _raw(raw_tensor(name, value), out)


def moments(array: Any) -> tuple[str, Any]:
    """An array of datetime64 or timedelta64 as its type here, and its integers."""
    import numpy

    unit, count = numpy.datetime_data(array.dtype)
    prefix = "TS" if array.dtype.kind == "M" else "DUR"
    plain = numpy.asarray(array)
    swapped = plain.dtype.newbyteorder("=")
    return f"{prefix}[{count if count > 1 else ''}{unit}]", plain.astype(swapped).view("i8")


def _moment(name: str, value: Any) -> RawTensor:
    """A date, time, datetime or timedelta of Python, or a Timestamp or Timedelta of pandas."""
    if hasattr(value, "to_datetime64") or hasattr(value, "to_timedelta64"):
        method = value.to_datetime64 if hasattr(value, "to_datetime64") else value.to_timedelta64
        dtype, number = moments(method())
        unit = dtype[dtype.index("[") + 1 : -1]
        zone = zone_name(getattr(value, "tzinfo", None))
        dtype = time_type(unit, zone) if dtype.startswith("TS") else dtype
        return raw_bytes(name, dtype, (), [struct.pack("<q", int(number))])
    if isinstance(value, dt.datetime):
        utc = value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)
        number, dtype = (utc - _UNIX) // dt.timedelta(microseconds=1), time_type(
            "us", zone_name(value.tzinfo)
        )  # fmt: skip
    elif isinstance(value, dt.date):
        return raw_bytes(name, "D32", (), [struct.pack("<i", (value - _UNIX.date()).days)])
    elif isinstance(value, dt.time):
        if value.tzinfo is not None:
            raise InputError(f"at {name}: found a time with a zone, expected one without")
        whole = dt.datetime.combine(_UNIX, value) - _UNIX
        number, dtype = whole // dt.timedelta(microseconds=1), "TIME[us]"
    else:
        number, dtype = value // dt.timedelta(microseconds=1), "DUR[us]"
    return raw_bytes(name, dtype, (), [struct.pack("<q", number)])


def _pixels(picture: Any) -> Any:
    import numpy

    return numpy.asarray(picture)


def _raw(tensor: RawTensor, out: list[Chunk]) -> int:
    out += (tensor_header(tensor.name, tensor.dtype, tensor.shape), tensor)
    return tensor.nbytes


def _key(path: Path, key: object) -> bytes:
    if not isinstance(key, str):
        raise InputError(f"at {_name(path)}: found the key {key!r}, expected a str")
    return key.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1 << 14)
def node_head(path: Path, dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of the node at ``path`` of an element."""
    return tensor_header(_name(path), dtype, shape)


def _item_heads(path: Path, count: int, dtype: str) -> list[bytes]:
    """The headers of the first items of a list, at least ``count``."""
    if count > _MOST:
        return _kept_heads.__wrapped__(path, count, dtype)
    return _kept_heads(path, 1 << (count - 1).bit_length(), dtype)


@lru_cache(maxsize=256)
def _kept_heads(path: Path, count: int, dtype: str) -> list[bytes]:
    return [tensor_header(_name((*path, index)), dtype, ()) for index in range(count)]


@lru_cache(maxsize=4096)
def _name(path: Path) -> str:
    return canonical(list(path)).decode()
