"""A bundle as one zip file (PKWARE APPNOTE 6.3), read without extracting it.

Everything is checked before anything is unpacked: number, names, sizes, ratios and depth of
the entries, and that they fill the file from its first byte to its end without gap, overlap
or trailing bytes, with the same words in front of each entry as in the central directory.
What other tools' zips have is read: stored and deflated entries, data descriptors, folders,
zip64 counts, the bundle in one folder at the top. What can hide something is refused: links
and special files, encryption, a second name for an entry, names that differ only in case,
comments, zip64 sizes (no file of a bundle needs them).
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Self
from zipfile import ZipInfo

from provenance import files as whole_files
from provenance.bundle import sources
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
MAX_TOTAL_RATIO: Final = 40
"""All entries together; salts and digests leave a bundle a ratio of two or three."""
TOTAL_RATIO_FROM: Final = 16 * 1024**2
MAX_ARCHIVE_BYTES: Final = 2**32 - 2
_MAX_DIRECTORY_BYTES: Final = 64 * 1024**2

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_LOCAL_BYTES: Final = 30
_CENTRAL_BYTES: Final = 46
_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_DESCRIBED: Final = 1 << 3
_KNOWN_FLAGS: Final = 1 << 1 | 1 << 2 | _DESCRIBED | 1 << 11
_DOS_FOLDER: Final = 0x10
_DOS_VOLUME: Final = 0x08
_UNICODE_PATH: Final = 0x7075
_ZIP64: Final = 0xFFFFFFFF


def write_zip(files: Mapping[str, bytes], path: Path, mode: int = whole_files.PUBLIC) -> None:
    """Write files as a zip, whole or not at all; a bundle's zip that is there is replaced, for
    anything else there is ``InputError``. The same files give the same bytes wherever zlib is the
    same: sorted names, the date 1980-01-01, no attributes but mode 0644."""
    if (path.exists() or path.is_symlink()) and not is_zipped_bundle(path):
        raise InputError(f"{path}: is no bundle; nothing was overwritten")
    with whole_files.errors_of(path, "written"):
        whole_files.make_folders(path.parent, mode)
        with whole_files.replacing(path, mode) as output:
            pack(files, output)
            if output.seek(0, os.SEEK_END) > MAX_ARCHIVE_BYTES:
                raise InputError(f"{path}: larger than 4 GiB; write a folder instead")


def pack(files: Mapping[str, bytes], output: IO[bytes]) -> None:
    """The bytes that :func:`write_zip` writes."""
    with zipfile.ZipFile(output, "w", strict_timestamps=True) as archive:
        for name in sorted(files):
            archive.writestr(_header(name), files[name], _method(files[name]), 6)


def _header(name: str) -> ZipInfo:
    header = ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    header.create_system = 3
    header.external_attr = (stat.S_IFREG | 0o644) << 16
    return header


def _method(data: bytes) -> int:
    """Deflated, except where a reader would take it for a bomb. An entry of up to 4 KiB and what
    a zip says of it have a ratio below 40 anyway."""
    tight = len(data) > 4096 and len(zlib.compress(data)) * MAX_TOTAL_RATIO < 2 * len(data)
    return zipfile.ZIP_STORED if tight else zipfile.ZIP_DEFLATED


def is_zipped_bundle(path: Path) -> bool:
    """Whether a file is a zip with a bundle's files in it, and no others."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with ZipSource(path) as archive:
            return sources.stranger(archive) is None
    except (InputError, FormatError, IntegrityError):
        return False


class ZipSource:
    """A bundle in a zip file, open until it is closed. :mod:`zipfile` reads the central directory;
    that the entries fill the file, and each has the same words in front of it, is checked here."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._label = path.name
        with whole_files.errors_of(path, "read"):
            self._file = path.open("rb")
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: not a bundle, neither a folder nor a zip file")
            self._size = status.st_size
            self._entries = self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def names(self) -> set[str]:
        """All files; folders are none."""
        return set(self._entries)

    def read(self, name: str, limit: int) -> bytes:
        """One file unpacked, to the size and CRC-32 that the zip states, or ``FormatError``."""
        entry, start = self._entries[name]
        if entry.file_size > limit:
            raise TooLargeError(f"{name}: more than {limit} bytes")
        data = self._at(start, entry.compress_size)
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            data = _inflate(data, entry.file_size, name)
        if len(data) != entry.file_size:
            raise FormatError(f"{name}: {len(data)} bytes in the zip, which says {entry.file_size}")
        if zlib.crc32(data) != entry.CRC:
            raise ChecksumError(f"{name}: its CRC-32 is not the one in the zip: it was changed")
        return data

    def _open(self) -> dict[str, tuple[ZipInfo, int]]:
        """Each file's entry and where its bytes begin, by name in the bundle."""
        count, directory, end = self._end()
        entries = self._directory(count)
        files = {e.orig_filename: e for e in entries if not e.orig_filename.endswith("/")}
        top = sources.top_folder(files.keys())
        if top + sources.MANIFEST not in files:
            raise InputError(f"{self.where}: not a bundle, there is no {sources.MANIFEST} in it")
        seen: dict[str, bool] = {}
        for entry in entries:
            _check(entry)
            sources.check_alone(entry.orig_filename, seen)
        plausible = TOTAL_RATIO_FROM + MAX_TOTAL_RATIO * self._size
        most = min(sources.MAX_TOTAL_BYTES, plausible)
        if sum(entry.file_size for entry in entries) > most:
            raise TooLargeError(f"{self._label}: unpacks to more than {most} bytes")
        if entries:
            self._check_last(entries[-1], end)
        starts = self._starts(entries, directory)
        named = {n.removeprefix(top): (entry, starts[n]) for n, entry in files.items()}
        for name, (entry, _) in named.items():
            if entry.file_size > (limit := sources.limit_of(name, len(named))):
                raise TooLargeError(f"{name}: more than {limit} bytes")
        return named

    def _end(self) -> tuple[int, int, int]:
        """How many entries the zip has, and where the central directory begins and ends."""
        if self._size > MAX_ARCHIVE_BYTES:
            raise TooLargeError(f"{self._label}: a zip of more than 4 GiB")
        at = self._size - _END.size
        if at < 0 or self._at(at, 4) != b"PK\5\6":
            raise self._no_end()
        end: tuple[int, ...] = _END.unpack(self._at(at, _END.size))[1:]
        disk, first, here, count, length, start, comment = end
        if disk or first or comment or here != count:
            raise self._bad("parts on other disks, or a comment")
        locator = self._at(max(0, at - _LOCATOR.size), min(at, _LOCATOR.size))
        if locator.startswith(b"PK\6\7"):  # APPNOTE 4.3.14, 4.3.15
            at -= _LOCATOR.size + _END64.size
            if at < 0 or locator != _LOCATOR.pack(b"PK\6\7", 0, at, 1):
                raise self._bad("its zip64 end is not where it should be")
            end64 = _END64.unpack(self._at(at, _END64.size))
            count, length, start = end64[-3:]
            if end64[:2] + end64[4:7] != (b"PK\6\6", _END64.size - 12, 0, 0, count):
                raise self._bad("its zip64 end does not decode")
        if count > sources.MAX_FILES:
            raise TooLargeError(f"{self._label}: more than {sources.MAX_FILES} files")
        if length > _MAX_DIRECTORY_BYTES:
            raise TooLargeError(f"{self._label}: its directory is too large")
        if start + length != at:
            raise self._bad("its directory does not end where it should")
        return count, start, at

    def _no_end(self) -> Exception:
        length = min(self._size, 0xFFFF + _END.size)
        end = self._at(self._size - length, length).rfind(b"PK\5\6")
        if 0 <= end < length - _END.size:
            return TrailingBytesError(f"{self._label}: bytes behind the end of the zip")
        if self._at(0, min(4, self._size)) != b"PK\3\4":
            return InputError(f"{self.where}: not a bundle, neither a folder nor a zip file")
        return TruncatedError(f"{self._label}: a zip file that is cut off")

    def _directory(self, count: int) -> list[ZipInfo]:
        try:
            entries = zipfile.ZipFile(self._file).infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise self._bad(f"its directory does not decode: {error}") from error
        for entry in entries:
            if max(entry.compress_size, entry.file_size, entry.header_offset) >= _ZIP64:
                name = ascii(entry.orig_filename[:120])
                raise FormatError(f"{name}: has zip64 sizes; pack the folder again with zip -r")
        if len(entries) != count:
            raise self._bad(f"its directory has {len(entries)} entries, its end says {count}")
        return entries

    def _check_last(self, entry: ZipInfo, end: int) -> None:
        """The last entry may not claim bytes behind the directory; :mod:`zipfile` lets it."""
        lengths = (len(entry.orig_filename), len(entry.extra), len(entry.comment))
        stated = self._at(end - sum(lengths) - _CENTRAL_BYTES + 28, 6)
        if stated != struct.pack("<3H", *lengths):
            raise self._bad("its directory is cut off")

    def _starts(self, entries: Sequence[ZipInfo], directory: int) -> dict[str, int]:
        """Where each entry's bytes begin; together they fill the file up to the directory."""
        starts: dict[str, int] = {}
        end = 0
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            name = entry.orig_filename
            if entry.header_offset != end and not starts:
                raise self._bad("bytes lie in front of its first entry")
            if entry.header_offset != end:
                raise self._bad(f"entries overlap, or bytes lie between them, in front of {name}")
            starts[name] = self._local(entry)
            end = starts[name] + entry.compress_size
            if entry.flag_bits & _DESCRIBED:
                end += self._descriptor(entry, end)
        if end != directory:
            raise self._bad("entries overlap, or bytes lie between them, before its directory")
        return starts

    def _local(self, entry: ZipInfo) -> int:
        """Where the entry's bytes begin; what stands in front of them must fit."""
        at, name = entry.header_offset, entry.orig_filename
        head = self._at(at, _LOCAL_BYTES)
        name_length, extra_length = struct.unpack("<2H", head[26:])
        rest = self._at(at + _LOCAL_BYTES, name_length + extra_length)
        words, sizes = _words(entry)
        stated = [sizes, bytes(12)] if entry.flag_bits & _DESCRIBED else [sizes]
        heads = [words + size for size in stated]
        if head[:26] not in heads or rest[:name_length] != name.encode():
            raise FormatError(f"{name[:120]}: the zip contradicts itself about it")
        _check_extra(rest[name_length:], name)
        return at + _LOCAL_BYTES + len(rest)

    def _descriptor(self, entry: ZipInfo, at: int) -> int:
        """How long the data descriptor is; none is needed where the next entry follows."""
        _, sizes = _words(entry)
        behind = self._at(at, 4 + len(sizes))
        if behind == b"PK\7\10" + sizes:
            return len(behind)
        return len(sizes) if behind.startswith(sizes) else 0

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


def _words(entry: ZipInfo) -> tuple[bytes, bytes]:
    """What stands in front of an entry (APPNOTE 4.3.7): signature, version, flags, method, time
    and date; then CRC-32, packed size and size, which a data descriptor has too."""
    year, month, day, hour, minute, second = entry.date_time
    time, date = hour << 11 | minute << 5 | second // 2, year - 1980 << 9 | month << 5 | day
    version = (entry.extract_version, entry.reserved)
    words = (b"PK\3\4", *version, entry.flag_bits, entry.compress_type, time, date)
    sizes = (entry.CRC, entry.compress_size, entry.file_size)
    return struct.pack("<4s2B4H", *words), struct.pack("<3L", *sizes)


def _check(entry: ZipInfo) -> None:
    """Refuse an entry that is no plain file or folder of a bundle."""
    folder = entry.orig_filename.endswith("/")
    name = sources.check_name(entry.orig_filename.removesuffix("/"))
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise IntegrityError(f"{name}: is a link; a bundle has none")
    allowed = (0, stat.S_IFDIR if folder else stat.S_IFREG)
    if kind not in allowed or entry.external_attr & _DOS_VOLUME:
        raise IntegrityError(f"{name}: is neither a file nor a folder")
    if not folder and entry.external_attr & _DOS_FOLDER:
        raise IntegrityError(f"{name}: is called a file and a folder")
    if entry.comment or entry.volume or entry.internal_attr & ~1:
        raise FormatError(f"{name}: has a comment, or lies on another disk")
    if entry.flag_bits & _ENCRYPTED:
        raise FormatError(f"{name}: is encrypted")
    if entry.flag_bits & ~_KNOWN_FLAGS:
        raise FormatError(f"{name}: flags {entry.flag_bits:#06x} that are not known here")
    packed, size = entry.compress_size, entry.file_size
    stored = entry.compress_type == zipfile.ZIP_STORED
    if not stored and entry.compress_type != zipfile.ZIP_DEFLATED:
        raise FormatError(f"{name}: packed by method {entry.compress_type}, not stored or deflated")
    if folder and (size or entry.CRC):
        raise IntegrityError(f"{name}: a folder with content")
    if packed != size if stored else packed > 2 * size + 1024:
        raise FormatError(f"{name}: {packed} bytes cannot be {size} packed")
    if size > RATIO_FROM and size > MAX_RATIO * packed:
        raise TooLargeError(f"{name}: unpacks to more than {MAX_RATIO} times its size")
    _check_extra(entry.extra, name)


def _check_extra(extra: bytes, name: str) -> None:
    """Extra fields (APPNOTE 4.5) are whole, and none is a second name."""
    while extra:
        kind, length = struct.unpack("<HH", extra[:4]) if len(extra) >= 4 else (0, len(extra))
        if 4 + length > len(extra):
            raise FormatError(f"{name}: an extra field that is cut off")
        if kind == _UNICODE_PATH:
            raise IntegrityError(f"{name}: has a second name")
        extra = extra[4 + length :]


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
