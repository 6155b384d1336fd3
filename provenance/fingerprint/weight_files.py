"""Tensors in files: safetensors, mapped into memory, and NumPy's npz.

WARNING: FROZEN FORMAT, as in arrays.py. This file's functions named ``*_file`` read the file
that they are given; nothing else is read or written, and nothing is ever unpickled.

safetensors (https://github.com/huggingface/safetensors, "Format")::

    8 bytes little-endian N | N bytes JSON | data
    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}

Offsets count from the start of the data; the tensors lie in it without gap or overlap, and fill
it. The optional key ``__metadata__`` belongs to no tensor and is not part of a digest.

npz is a zip archive of npy files (numpy.lib.format); a member ``a.npy`` is the tensor ``a``.
"""

from __future__ import annotations

import math
import mmap
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Final

from provenance.errors import (
    FormatError,
    InputError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)
from provenance.fingerprint.arrays import ITEM_BYTES, Array, RawTensor, load_numpy, raw_tensor
from provenance.formats import json_text

MAX_HEADER_BYTES: Final = 100_000_000
"""Largest safetensors header in bytes, as in its reference implementation."""

_LENGTH_BYTES: Final = 8
_HEADER_LIMITS: Final = json_text.Limits(1_000_000, 2_000_000)  # some 330,000 tensors
# What zipfile and numpy.lib.format raise for bytes that are no npz; RuntimeError: encrypted.
_NPZ_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


def safetensors_tensors_file(path: str | os.PathLike[str]) -> Iterator[RawTensor]:
    """The tensors of a safetensors file in the order of their data; nothing is copied.

    Raises:
        InputError: the file is missing or cannot be read.
        FormatError: truncated, trailing bytes, a header that is too large or not as above,
            an element type without a name here. The message names file and tensor.
    """
    where = f"safetensors file {os.fspath(path)!r}"
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _LENGTH_BYTES:
                raise TruncatedError(f"{where}: {size} bytes, expected at least {_LENGTH_BYTES}")
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise TooLargeError(f"{where}: header of {length} bytes, at most {MAX_HEADER_BYTES}")
    data = view[_LENGTH_BYTES + length :]
    if _LENGTH_BYTES + length > size:
        raise TruncatedError(f"{where}: header of {length} bytes in a file of {size} bytes")
    entries = _entries(where, bytes(view[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    end = 0
    for name, dtype, shape, offsets in sorted(entries, key=lambda entry: entry[3]):
        if offsets[0] != end:
            raise FormatError(f"{where}: tensor {name!r} begins at {offsets[0]}, expected {end}")
        end += math.prod(shape) * ITEM_BYTES[dtype]
        if offsets[1] != end:
            raise FormatError(f"{where}: tensor {name!r} ends at {offsets[1]}, expected {end}")
        if end > len(data):
            raise TruncatedError(f"{where}: tensor {name!r} ends at {end}, data at {len(data)}")
        yield _mapped(name, dtype, shape, data[offsets[0] : end])
    if end != len(data):
        raise TrailingBytesError(f"{where}: {len(data) - end} bytes after the last tensor")


def npz_tensors_file(path: str | os.PathLike[str]) -> Iterator[RawTensor]:
    """The arrays of an npz file, one in memory at a time.

    Raises:
        InputError: the file is missing or cannot be read, or an array has no element type
            that has a name here (pickled objects are never loaded).
        MissingExtraError: NumPy is not installed.
        FormatError: it is no zip archive of npy files.
    """
    where = f"npz file {os.fspath(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            seen: set[str] = set()
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    raise FormatError(f"{where}: found {member.filename!r}, expected .npy files")
                name = member.filename.removesuffix(".npy")
                if name in seen:
                    raise FormatError(f"{where}: the array {name!r} is there twice")
                seen.add(name)
                with archive.open(member) as file:
                    array = _npy_array(name, file)
                yield raw_tensor(name, array)
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
    except _NPZ_ERRORS as error:
        raise FormatError(f"{where}: {error}") from error


def _npy_array(name: str, file: Any) -> Array:
    try:
        return load_numpy().lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(f"tensor {name!r}: found dtype object, expected numbers") from error


def _mapped(name: str, dtype: str, shape: tuple[int, ...], data: memoryview) -> RawTensor:
    chunks = (data,) if len(data) else ()
    return RawTensor(name, dtype, shape, len(data), lambda: iter(chunks))


def _entries(where: str, header: bytes) -> list[tuple[str, str, tuple[int, ...], tuple[int, int]]]:
    """Name, dtype, shape and offsets of each tensor, checked one by one."""
    try:
        fields = json_text.loads(header, limits=_HEADER_LIMITS)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: header is no JSON object: {error}") from error
    if not isinstance(fields, dict):
        raise FormatError(f"{where}: header is {type(fields).__name__}, expected a JSON object")
    fields.pop("__metadata__", None)
    entries = []
    for name, entry in fields.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise FormatError(
                f"{where}: tensor {name!r} must have exactly dtype, shape and data_offsets"
            )
        dtype = entry["dtype"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise FormatError(
                f"{where}: tensor {name!r}: found dtype {dtype!r},"
                f" expected one of {', '.join(ITEM_BYTES)}"
            )
        shape = _naturals(f"{where}: tensor {name!r}: shape", entry["shape"])
        offsets = _naturals(f"{where}: tensor {name!r}: data_offsets", entry["data_offsets"])
        if len(offsets) != 2:
            raise FormatError(f"{where}: tensor {name!r}: data_offsets has {len(offsets)} numbers")
        entries.append((name, dtype, shape, (offsets[0], offsets[1])))
    return entries


def _naturals(where: str, value: object) -> tuple[int, ...]:
    """A list of numbers from 0 to 2**53 - 1 (what canonical JSON holds)."""
    if not isinstance(value, list):
        raise FormatError(f"{where}: found {type(value).__name__}, expected a list")
    for item in value:
        if type(item) is not int or not 0 <= item < 1 << 53:
            raise FormatError(f"{where}: found {item!r}, expected an integer from 0 to 2**53 - 1")
    return tuple(value)
