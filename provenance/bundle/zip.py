"""A bundle as one zip file (PKWARE APPNOTE 6.3), read without extracting it.

Everything is checked before anything is unpacked: number, names, sizes, ratio and depth of
the entries, and that they fill the file from its first byte to its end without gap, overlap
or trailing bytes, with the same words in front of each entry as in the central directory.
What other tools' zips have is read: stored and deflated entries, data descriptors, folders,
zip64 counts, the bundle in one folder at the top. What can hide something is refused: links
and special files, encryption, a second name for an entry, names that differ only in case,
comments, zip64 sizes (no file of a bundle needs them).
"""

from __future__ import annotations

import os
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from provenance.bundle import reader
from provenance.bundle.reader import (
    MANIFEST,
    SUMS,
    check_alone,
    check_name,
    limit_of,
    top_folder,
)
from provenance.errors import (
    ChecksumError,
    FormatError,
    InputError,
    IntegrityError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)

MAX_RATIO: Final = 200
RATIO_FROM: Final = 64 * 1024
"""Bytes unpacked; below that an entry may be packed as tightly as it likes."""
MAX_ARCHIVE_BYTES: Final = 2**32 - 2
_MAX_DIRECTORY_BYTES: Final = 64 * 1024**2

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_DESCRIPTOR: Final = struct.Struct("<3L")
_STORED: Final = 0
_DEFLATED: Final = 8
_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_DESCRIBED: Final = 1 << 3
_KNOWN_FLAGS: Final = 1 << 1 | 1 << 2 | _DESCRIBED | 1 << 11
_DOS_FOLDER: Final = 0x10
_DOS_VOLUME: Final = 0x08
_UNICODE_PATH: Final = 0x7075
_ESCAPED: Final = 0xFFFFFFFF


# --- writing -----------------------------------------------------------------------------


def write_zip(files: Mapping[str, bytes], path: Path) -> None:
    """Write files as a zip, whole or not at all; a bundle's zip that is there is replaced.

    The same files give the same bytes wherever zlib is the same: sorted names, the date
    1980-01-01, no attributes but mode 0644.

    Raises:
        InputError: Something else is there, it cannot be written, or it would be too large.
    """
    if (path.exists() or path.is_symlink()) and not is_zipped_bundle(path):
        raise InputError(f"{path}: is no bundle; nothing was overwritten")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "x", strict_timestamps=True) as archive:
            for name in sorted(files):
                archive.writestr(_header(name), files[name], _method(files[name]), 6)
        if partial.stat().st_size > MAX_ARCHIVE_BYTES:
            raise InputError(f"{path}: larger than 4 GiB; write a folder instead")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if os.path.lexists(partial):
            partial.unlink()


def _header(name: str) -> zipfile.ZipInfo:
    header = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    header.create_system = 3
    header.external_attr = (stat.S_IFREG | 0o644) << 16
    return header


def _method(data: bytes) -> int:
    """Deflated, except where a reader would take it for a bomb."""
    tight = len(data) > RATIO_FROM and len(zlib.compress(data)) * MAX_RATIO < 2 * len(data)
    return _STORED if tight else _DEFLATED


def is_zipped_bundle(path: Path) -> bool:
    """Whether a file is a zip with a bundle's files in it."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with ZipSource(path) as archive:
            return {MANIFEST, SUMS, "run.json"} <= archive.names()
    except (InputError, FormatError, IntegrityError):
        return False


# --- reading -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the central directory; ``words`` are those that stand in front of it too."""

    raw_name: bytes
    words: tuple[int, ...]
    crc: int
    packed: int
    size: int
    offset: int

    @property
    def name(self) -> str:
        return self.raw_name.decode("ascii", "backslashreplace")

    @property
    def flags(self) -> int:
        return self.words[1]

    @property
    def method(self) -> int:
        return self.words[2]


class ZipSource:
    """A bundle in a zip file, open until it is closed.

    Raises:
        InputError: There is no such file, it cannot be opened, or no bundle is in it.
        FormatError: It is no zip, is cut off, or is not as the module says.
        IntegrityError: An entry that is a link, is special, or has a name that a bundle has not.
    """

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._label = path.name
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            found = os.fstat(self._file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{path}: not a bundle, neither a folder nor a zip file")
            self._size = found.st_size
            self._entries = self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def names(self) -> set[str]:
        """All files; folders are none."""
        return set(self._entries)

    def read(self, name: str, limit: int) -> bytes:
        """One file unpacked; at most ``limit`` + 1 bytes of it.

        Raises:
            FormatError: It does not unpack to the size and CRC-32 that the zip states.
        """
        entry, start = self._entries[name]
        if entry.size > limit:
            raise TooLargeError(f"{name}: more than {limit} bytes")
        packed = self._at(start, entry.packed)
        data = packed if entry.method == _STORED else _inflate(packed, entry.size, name)
        if len(data) != entry.size:
            raise FormatError(f"{name}: {len(data)} bytes in the zip, which says {entry.size}")
        if zlib.crc32(data) != entry.crc:
            raise ChecksumError(f"{name}: its CRC-32 is not the one in the zip: it was changed")
        return data

    def _open(self) -> dict[str, tuple[_Entry, int]]:
        count, at, length = self._end()
        entries = sorted(self._central(count, at, length), key=lambda entry: entry.offset)
        bounds = [*(entry.offset for entry in entries), at]
        if bounds[0] != 0:
            raise self._bad("bytes lie in front of its first entry")
        starts = [self._local(e, end) for e, end in zip(entries, bounds[1:], strict=True)]
        files = {
            entry.name: (entry, start)
            for entry, start in zip(entries, starts, strict=True)
            if not entry.raw_name.endswith(b"/")
        }
        top = top_folder(files.keys())
        named = {name.removeprefix(top): found for name, found in files.items()}
        if MANIFEST not in named:
            raise InputError(f"{self.where}: not a bundle, there is no {MANIFEST} in it")
        for name, (entry, _) in named.items():
            if entry.size > limit_of(name):
                raise TooLargeError(f"{name}: more than {limit_of(name)} bytes")
        return named

    def _end(self) -> tuple[int, int, int]:
        """Number of entries, and where the central directory begins and how long it is."""
        if self._size > MAX_ARCHIVE_BYTES:
            raise TooLargeError(f"{self._label}: a zip of more than 4 GiB")
        at = self._size - _END.size
        if at < 0 or self._at(at, 4) != b"PK\5\6":
            raise self._no_end()
        end: tuple[int, ...] = _END.unpack(self._at(at, _END.size))[1:]
        disk, first, here, count, length, start, comment = end
        if disk or first or comment or here != count:
            raise self._bad("parts on other disks, or a comment")
        behind = at
        locator = self._at(max(0, at - _LOCATOR.size), min(at, _LOCATOR.size))
        if locator.startswith(b"PK\6\7"):
            count, start, length, behind = self._end64(at, locator)
        if count > reader.MAX_FILES:
            raise TooLargeError(f"{self._label}: more than {reader.MAX_FILES} files")
        if length > _MAX_DIRECTORY_BYTES:
            raise TooLargeError(f"{self._label}: its directory is too large")
        if start + length != behind:
            raise self._bad("its directory does not end where it should")
        return count, start, length

    def _no_end(self) -> Exception:
        length = min(self._size, 0xFFFF + _END.size)
        found = self._at(self._size - length, length).rfind(b"PK\5\6")
        if 0 <= found < length - _END.size:
            return TrailingBytesError(f"{self._label}: bytes behind the end of the zip")
        if self._at(0, min(4, self._size)) != b"PK\3\4":
            return InputError(f"{self.where}: not a bundle, neither a folder nor a zip file")
        return TruncatedError(f"{self._label}: a zip file that is cut off")

    def _end64(self, end: int, locator: bytes) -> tuple[int, int, int, int]:
        """APPNOTE 4.3.14: count, start and length, and where the directory must end."""
        at = end - _LOCATOR.size - _END64.size
        if at < 0 or _LOCATOR.unpack(locator)[1:] != (0, at, 1):
            raise self._bad("its zip64 end is not where it should be")
        sign, size, _, _, disk, first, here, count, length, start = _END64.unpack(
            self._at(at, _END64.size)
        )
        if (sign, size, disk, first, here) != (b"PK\6\6", _END64.size - 12, 0, 0, count):
            raise self._bad("its zip64 end does not decode")
        return count, start, length, at

    def _central(self, count: int, start: int, length: int) -> list[_Entry]:
        data = self._at(start, length)
        entries: list[_Entry] = []
        seen: dict[str, bool] = {}
        total = at = 0
        for _ in range(count):
            if at + _CENTRAL.size > len(data):
                raise self._bad("its directory is cut off")
            (
                signature, _, version, flags, method, time, date, crc, packed, size,
                name_length, extra, comment, disk, kind, attributes, offset,
            ) = _CENTRAL.unpack_from(data, at)  # fmt: skip
            name = data[at + _CENTRAL.size : at + _CENTRAL.size + name_length]
            extra_at = at + _CENTRAL.size + name_length
            at = extra_at + extra + comment
            if signature != b"PK\1\2" or at > len(data):
                raise self._bad("its directory does not decode")
            entry = _Entry(name, (version, flags, method, time, date), crc, packed, size, offset)
            if disk or comment or kind & ~1:
                raise self._bad(f"{entry.name[:120]!r} has a comment, or lies on another disk")
            self._check(entry, attributes, data[extra_at : extra_at + extra])
            check_alone(entry.name, seen)
            entries.append(entry)
            total += size
            if total > reader.MAX_TOTAL_BYTES:
                raise TooLargeError(
                    f"{self._label}: unpacks to more than {reader.MAX_TOTAL_BYTES} bytes"
                )
        if at != len(data):
            raise self._bad("its directory has bytes behind its last entry")
        return entries

    def _check(self, entry: _Entry, attributes: int, extra: bytes) -> None:
        name = check_name(entry.name.removesuffix("/"))
        folder = entry.raw_name.endswith(b"/")
        kind = stat.S_IFMT(attributes >> 16)
        if kind == stat.S_IFLNK:
            raise IntegrityError(f"{name}: is a link; a bundle has none")
        allowed = (0, stat.S_IFDIR if folder else stat.S_IFREG)
        if kind not in allowed or attributes & _DOS_VOLUME:
            raise IntegrityError(f"{name}: is neither a file nor a folder")
        if not folder and attributes & _DOS_FOLDER:
            raise IntegrityError(f"{name}: is called a file and a folder")
        if entry.flags & _ENCRYPTED:
            raise FormatError(f"{name}: is encrypted")
        if entry.flags & ~_KNOWN_FLAGS:
            raise FormatError(f"{name}: flags {entry.flags:#06x} that are not known here")
        if entry.method not in (_STORED, _DEFLATED):
            raise FormatError(f"{name}: packed by method {entry.method}, not stored or deflated")
        if _ESCAPED in (entry.packed, entry.size, entry.offset):
            raise FormatError(f"{name}: has zip64 sizes; pack the folder again with zip -r")
        if folder and (entry.size or entry.crc):
            raise IntegrityError(f"{name}: a folder with content")
        most = entry.size if entry.method == _STORED else 2 * entry.size + 1024
        if entry.packed > most or (entry.method == _STORED and entry.packed < most):
            raise FormatError(f"{name}: {entry.packed} bytes cannot be {entry.size} packed")
        if entry.size > RATIO_FROM and entry.size > MAX_RATIO * entry.packed:
            raise TooLargeError(f"{name}: unpacks to more than {MAX_RATIO} times its size")
        if _UNICODE_PATH in _extra_kinds(extra, name):
            raise IntegrityError(f"{name}: has a second name")

    def _local(self, entry: _Entry, following: int) -> int:
        """Where the entry's bytes begin; what stands in front of and behind them must fit."""
        name = entry.name
        signature, version, flags, method, time, date, crc, packed, size, name_length, extra = (
            _LOCAL.unpack(self._at(entry.offset, _LOCAL.size))
        )
        rest = self._at(entry.offset + _LOCAL.size, name_length + extra)
        described = bool(flags & _DESCRIBED)
        sizes = (entry.crc, entry.packed, entry.size)
        fits = (crc, packed, size) == sizes or (described and not (crc or packed or size))
        if (
            signature != b"PK\3\4"
            or (version, flags, method, time, date) != entry.words
            or rest[:name_length] != entry.raw_name
            or not fits
        ):
            raise FormatError(f"{name[:120]}: the zip contradicts itself about it")
        if _UNICODE_PATH in _extra_kinds(rest[name_length:], name):
            raise IntegrityError(f"{name}: has a second name")
        start: int = entry.offset + _LOCAL.size + name_length + extra
        gap = following - start - entry.packed
        behind = self._at(start + entry.packed, gap) if 0 < gap <= 4 + _DESCRIPTOR.size else b""
        expected = _DESCRIPTOR.pack(*sizes)
        if gap and not (described and behind in (expected, b"PK\7\10" + expected)):
            raise self._bad(f"entries overlap, or bytes lie between them, behind {name}")
        return start

    def _at(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise FormatError(f"{self._label}: cannot be read: {error.strerror}") from error
        if len(data) < length:
            raise TruncatedError(f"{self._label}: is cut off")
        return data

    def _bad(self, problem: str) -> FormatError:
        return FormatError(f"{self._label}: not a zip file that is read here: {problem}")


def _extra_kinds(extra: bytes, name: str) -> set[int]:
    kinds, at = set(), 0
    while at < len(extra):
        if at + 4 > len(extra):
            raise FormatError(f"{name}: an extra field that is cut off")
        kind, length = struct.unpack_from("<HH", extra, at)
        kinds.add(kind)
        at += 4 + length
    if at > len(extra):
        raise FormatError(f"{name}: an extra field that is cut off")
    return kinds


def _inflate(packed: bytes, size: int, name: str) -> bytes:
    """RFC 1951, one stream and nothing behind it; never more than one byte beyond ``size``."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise FormatError(f"{name}: does not unpack: it was changed") from error
    if len(data) <= size and (not stream.eof or stream.unused_data):
        raise FormatError(f"{name}: does not unpack to its end: it was changed")
    return data
