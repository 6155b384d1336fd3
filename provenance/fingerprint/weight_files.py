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
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Final

from provenance.errors import (
    FormatError,
    InputError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)
from provenance.files import errors_of
from provenance.fingerprint.arrays import ITEM_BYTES, RawTensor, load_numpy, raw_tensor
from provenance.fingerprint.row_major import COPY_BYTES
from provenance.formats import json_text

MAX_HEADER_BYTES: Final = 100_000_000
"""Largest safetensors header in bytes, as in its reference implementation."""

_LENGTH_BYTES: Final = 8
_HEADER_LIMITS: Final = json_text.Limits(1_000_000, 2_000_000)  # some 330,000 tensors
_MAX_AXES: Final = 64
_HELD_RATIO: Final = 200
_SHOWN: Final = 80
# What zipfile raises for bytes that are no zip; RuntimeError: encrypted.
_ZIP_ERRORS: Final = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError,
    RuntimeError, LookupError, OverflowError,
)  # fmt: skip
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NPY_START: Final = 8
_MAX_NPY_HEADER: Final = 10_000  # as numpy.lib.format reads it
_NPY_FIELD: Final = re.compile(
    r"""'(descr|fortran_order|shape)'\s*:\s*"""
    r"""('[^'\\]{1,40}'|True|False|\((?:[0-9]{1,16}\s*,\s*)*(?:[0-9]{1,16}\s*)?\))"""
)
_NPY_HEADER: Final = re.compile(rf"\{{\s*(?:{_NPY_FIELD.pattern}\s*,?\s*){{3}}\}}\s*")
_NPY_DTYPES: Final = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8",
    "u8": "U64", "u4": "U32", "u2": "U16", "u1": "U8", "b1": "BOOL", "c8": "C64", "c16": "C128",
}  # fmt: skip
"""dtype name by the one of numpy.lib.format, without the order of its bytes."""


def safetensors_tensors_file(path: str | os.PathLike[str]) -> Iterator[RawTensor]:
    """The tensors of a safetensors file in the order of their data; nothing is copied.

    Raises:
        InputError: the file is missing or cannot be read.
        FormatError: truncated, trailing bytes, a header that is too large or not as above,
            an element type without a name here. The message names file and tensor.
    """
    where = f"safetensors file {os.fspath(path)!r}"
    with errors_of(where, "read"), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _LENGTH_BYTES:
            raise TruncatedError(f"{where}: {size} bytes, expected at least {_LENGTH_BYTES}")
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise TooLargeError(f"{where}: header of {length} bytes, at most {MAX_HEADER_BYTES}")
    data = view[_LENGTH_BYTES + length :]
    if _LENGTH_BYTES + length > size:
        raise TruncatedError(f"{where}: header of {length} bytes in a file of {size} bytes")
    entries = _entries(where, bytes(view[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    end = 0
    for name, dtype, shape, offsets in sorted(entries, key=lambda entry: entry[3]):
        tensor = f"{where}: tensor {name[:_SHOWN]!r}"
        if offsets[0] != end:
            raise FormatError(f"{tensor} begins at {offsets[0]}, expected {end}")
        end += _elements(tensor, shape) * ITEM_BYTES[dtype]
        if offsets[1] != end:
            raise FormatError(f"{tensor} ends at {offsets[1]}, expected {end}")
        if end > len(data):
            raise TruncatedError(f"{tensor} ends at {end}, data at {len(data)}")
        yield RawTensor(name, dtype, shape, end - offsets[0], data[offsets[0] : end])
    if end != len(data):
        raise TrailingBytesError(f"{where}: {len(data) - end} bytes after the last tensor")


def npz_tensors_file(path: str | os.PathLike[str]) -> Iterator[RawTensor]:
    """The arrays of an npz file; each must be read before the next one is asked for.

    An array is unpacked piece by piece. One that is not little-endian and row-major is held in
    memory, at most 200 times as large as its file.

    Raises:
        InputError: the file is missing or cannot be read, or an array has no element type
            that has a name here (pickled objects are never loaded).
        MissingExtraError: NumPy is needed and not installed.
        FormatError: it is no zip archive of npy files; names file and member.
    """
    where = f"npz file {os.fspath(path)!r}"
    with open_zip(path, where) as archive:
        seen: set[str] = set()
        for member in archive.infolist():
            shown = member.filename[:_SHOWN]
            if not member.filename.endswith(".npy"):
                raise FormatError(f"{where}: found {shown!r}, expected .npy files")
            name = member.filename.removesuffix(".npy")
            if name in seen:
                raise FormatError(f"{where}: the array {name[:_SHOWN]!r} is there twice")
            seen.add(name)
            yield _npy_tensor(name, archive, member, f"{where}: {shown!r}")


def open_zip(
    path: str | os.PathLike[str], where: str, methods: Sequence[int] = _METHODS
) -> zipfile.ZipFile:
    """A zip whose members can be what it says: none overlap, and none unpacks to more than
    deflate (RFC 1951) can hold, which has at least one byte for each 1,032.

    Args:
        methods: How members may be packed.

    Raises:
        InputError: it cannot be read.
        FormatError: it is no zip, or not as above; names the member.
    """
    with _zip_errors(where):
        archive = zipfile.ZipFile(path)
    left = os.fstat(archive.fp.fileno()).st_size if archive.fp else 0
    try:
        for member in archive.infolist():
            packed, size = member.compress_size, member.file_size
            name = f"{where}: {member.filename[:_SHOWN]!r}"
            if member.compress_type not in methods:
                raise FormatError(f"{name}: packed by method {member.compress_type}")
            if size > (packed if member.compress_type == _METHODS[0] else 1032 * packed):
                raise TooLargeError(f"{name}: {packed} bytes cannot be {size} packed")
            left -= packed
            if left < 0:
                raise FormatError(f"{name}: overlaps others, or the file is cut off")
    except FormatError:
        archive.close()
        raise
    return archive


def _npy_tensor(
    name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str
) -> RawTensor:
    with _zip_errors(where), archive.open(member) as file:
        kind, fortran, shape, begin = _npy_header(file, where)
    dtype = _NPY_DTYPES.get(kind[1:])
    if dtype is None:
        found = "object" if kind[1:2] == "O" else kind
        raise InputError(f"{where}: found dtype {found}, expected numbers")
    nbytes = _elements(where, shape) * ITEM_BYTES[dtype]
    if member.file_size != begin + nbytes:
        error = TruncatedError if member.file_size < begin + nbytes else TrailingBytesError
        raise error(f"{where}: {member.file_size - begin} bytes, its shape needs {nbytes}")

    def chunks() -> Iterator[bytes]:
        with _zip_errors(where), archive.open(member) as file:
            file.read(begin)
            left = nbytes
            while piece := file.read(COPY_BYTES):  # zipfile compares the CRC-32 at the end
                left -= len(piece)
                yield piece
        if left:
            raise TruncatedError(f"{where}: {left} bytes are missing")

    if (kind[0] == "<" or ITEM_BYTES[dtype] == 1) and not (fortran and len(shape) > 1):
        return RawTensor(name, dtype, shape, nbytes, None, chunks)
    if nbytes > _HELD_RATIO * member.compress_size + COPY_BYTES:
        raise TooLargeError(f"{where}: unpacks to more than {_HELD_RATIO} times its size")
    flat = load_numpy().frombuffer(b"".join(chunks()), kind)
    return raw_tensor(name, flat.reshape(shape, order="F" if fortran else "C"))


def _npy_header(file: IO[bytes], where: str) -> tuple[str, bool, tuple[int, ...], int]:
    """dtype, whether column by column, shape, and where the elements begin
    (numpy.lib.format, versions 1 to 3)."""
    start = file.read(_NPY_START)
    width = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}.get(start[6:])
    if not start.startswith(b"\x93NUMPY") or width is None:
        raise FormatError(f"{where}: begins with {start!r}, expected an npy file of version 1 to 3")
    length = int.from_bytes(file.read(width), "little")
    text = file.read(min(length, _MAX_NPY_HEADER + 1)).decode("latin-1")
    fields = dict(_NPY_FIELD.findall(text)) if _NPY_HEADER.fullmatch(text) else {}
    if len(text) != length or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise FormatError(
            f"{where}: header {text[:_SHOWN]!r}, expected descr, fortran_order, shape"
        )
    kind, order, sizes = fields["descr"], fields["fortran_order"], fields["shape"]
    if not (kind.startswith("'") and order in ("True", "False") and sizes.startswith("(")):
        raise FormatError(f"{where}: header {text[:_SHOWN]!r}, expected an array of numbers")
    shape = tuple(int(size) for size in re.findall(r"[0-9]+", sizes))
    return kind.strip("'"), order == "True", shape, _NPY_START + width + length


@contextmanager
def _zip_errors(where: str) -> Iterator[None]:
    """What reading a zip raises, as errors of this project."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
    except _ZIP_ERRORS as error:
        raise FormatError(f"{where}: {str(error)[:200]}") from error


def _elements(where: str, shape: Sequence[int]) -> int:
    """How many elements an array has; a file holds fewer than 2**53."""
    if len(shape) > _MAX_AXES:
        raise FormatError(f"{where}: {len(shape)} axes, at most {_MAX_AXES}")
    count = math.prod(shape)
    if count >= 1 << 53:
        raise FormatError(f"{where}: a shape of 2**53 elements or more")
    return count


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
        tensor = f"{where}: tensor {name[:_SHOWN]!r}"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise FormatError(f"{tensor} must have exactly dtype, shape and data_offsets")
        dtype = entry["dtype"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            known = ", ".join(ITEM_BYTES)
            raise FormatError(f"{tensor}: found dtype {repr(dtype)[:_SHOWN]}, expected {known}")
        shape = _naturals(f"{tensor}: shape", entry["shape"])
        offsets = _naturals(f"{tensor}: data_offsets", entry["data_offsets"])
        if len(offsets) != 2:
            raise FormatError(f"{tensor}: data_offsets has {len(offsets)} numbers")
        entries.append((name, dtype, shape, (offsets[0], offsets[1])))
    return entries


def _naturals(where: str, value: object) -> tuple[int, ...]:
    """A list of numbers from 0 to 2**53 - 1 (what canonical JSON holds)."""
    if not isinstance(value, list):
        raise FormatError(f"{where}: found {type(value).__name__}, expected a list")
    for item in value:
        if type(item) is not int or not 0 <= item < 1 << 53:
            found = repr(item)[:_SHOWN]
            raise FormatError(f"{where}: found {found}, expected an integer from 0 to 2**53 - 1")
    return tuple(value)
