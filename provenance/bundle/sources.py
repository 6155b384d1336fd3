"""Where a bundle's files lie: a folder, a zip (:mod:`.zip`) or memory; and what each may be."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

from provenance.bundle.attachments import MAX_BYTES, is_attachment
from provenance.bundle.index import SAFE_PATH, load, read_path
from provenance.errors import FormatError, InputError, IntegrityError, TooLargeError
from provenance.formats.note import MAX_NOTE_BYTES
from provenance.formats.receipt import MAX_RECEIPT_BYTES
from provenance.formats.record import MAX_RECORD_BYTES

MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
MAX_FILES: Final = 200_000
MAX_TOTAL_BYTES: Final = 4 * 1024**3
MAX_INDEX_BYTES: Final = 16 * 1024**2
"""Of ``run.json`` where no files explain more, and of a file that no bundle has."""
_LIMITS: Final = {
    "records": MAX_RECORD_BYTES,
    "equivocations": MAX_RECORD_BYTES,
    "receipts": MAX_RECEIPT_BYTES,
    "heads": MAX_NOTE_BYTES,
    "ledger.vkey": 4096,
    "README.txt": 1024**2,
}
"""Bytes by first part of the path."""
_LINES: Final = {
    MANIFEST: (256 * 1024, 400),
    SUMS: (256 * 1024, 400),
    "run.json": (MAX_INDEX_BYTES, 1024),
}
"""Bytes of what lists the other files, and more bytes for each file that there is."""
_KEYS: Final = ("run", "roots", "files")


def limit_of(name: str, files: int) -> int:
    """The most bytes that a bundle's file may have; what lists its files may grow with them."""
    if is_attachment(name):
        return MAX_BYTES
    if name in _LINES:
        least, each = _LINES[name]
        return least + each * files
    return _LIMITS.get(name.partition("/")[0], MAX_INDEX_BYTES)


def check_name(name: str) -> str:
    """A file's name, where a bundle may have it, or ``IntegrityError``."""
    if not SAFE_PATH.fullmatch(name):
        raise IntegrityError(f"{name[:120]!r}: not a name that a bundle has")
    return name


def check_alone(name: str, seen: dict[str, bool]) -> None:
    """No two files that a file system could take for one, or ``IntegrityError``: letters' case
    counts nothing. A folder's name ends with ``/``; ``seen`` is what was checked before, and
    whether it is a folder."""
    folder = name.endswith("/")
    low = name.removesuffix("/").lower()
    if low in seen and (not folder or not seen[low]):
        raise IntegrityError(f"{name}: is in the bundle twice, by the letters of its name")
    parts = low.split("/")
    for depth in range(1, len(parts)):
        if not seen.setdefault("/".join(parts[:depth]), True):
            raise IntegrityError(f"{name}: lies in a file")
    seen[low] = folder


def top_folder(names: Collection[str]) -> str:
    """``""`` where the manifest is among the names, ``folder/`` where all lie in one folder
    that has it."""
    if MANIFEST in names:
        return ""
    top = next(iter(names), "").partition("/")[0] + "/"
    inside = top + MANIFEST in names and all(name.startswith(top) for name in names)
    return top if inside else ""


class FileSource(Protocol):
    """A folder, zip or mapping with the files of a bundle."""

    where: str
    """How messages name it."""

    def names(self) -> set[str]:
        """All files, by path inside the bundle; ``IntegrityError`` for links and odd names."""

    def read(self, name: str, limit: int) -> bytes:
        """The first ``limit`` + 1 bytes of a file, or ``FormatError`` naming it."""


def stranger(source: FileSource) -> str | None:
    """A file that a bundle's manifest does not list, or one that every bundle has and this one
    has not; None where it is a bundle and nothing else."""
    names = source.names()
    manifest = load(source.read(MANIFEST, limit_of(MANIFEST, len(names))), MANIFEST, *_KEYS)
    listed = {read_path(item, "path") for item in manifest.objects("files")}
    known = {MANIFEST, SUMS, "run.json"}
    return min((names - listed - known) | (known - names), default=None)


class FolderSource:
    """A bundle as a folder; ``InputError`` where there is no manifest."""

    def __init__(self, folder: Path) -> None:
        if not (folder / MANIFEST).is_file():
            raise InputError(f"{folder}: not a bundle, there is no {MANIFEST}")
        self.where = str(folder)

    def names(self) -> set[str]:
        """Every file, by its path from the top."""
        files: set[str] = set()
        folders = [""]
        while folders:
            prefix = folders.pop()
            try:
                entries = sorted(os.scandir(f"{self.where}/{prefix}"), key=lambda e: e.name)
            except OSError as error:
                raise FormatError(f"{prefix or '.'}: cannot be read: {error.strerror}") from error
            for entry in entries:
                name = f"{prefix}/{entry.name}" if prefix else entry.name
                if entry.is_symlink():
                    raise IntegrityError(f"{name}: is a link; a bundle has none")
                check_name(name)
                if entry.is_file(follow_symlinks=False):
                    files.add(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                else:
                    raise IntegrityError(f"{name}: is neither a file nor a folder")
                if len(files) + len(folders) > MAX_FILES:
                    raise TooLargeError(f"bundle: more than {MAX_FILES} files")
        return files

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of one file, at most ``limit`` and one more."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(f"{self.where}/{name}", flags)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise IntegrityError(f"{name}: is not a regular file")
                return file.read(min(limit, status.st_size) + 1)  # takes what it is asked for
        except OSError as error:
            raise FormatError(f"{name}: cannot be read: {error.strerror}") from error


class MemorySource:
    """A bundle whose files are in memory; it may sit in one folder of its own."""

    def __init__(self, files: Mapping[str, bytes], where: str) -> None:
        top = top_folder(files.keys())
        self._files = {name.removeprefix(top): data for name, data in files.items()}
        self.where = where
        if MANIFEST not in self._files:
            raise InputError(f"{where}: not a bundle, there is no {MANIFEST}")
        for name in self._files:
            check_name(name)

    def names(self) -> set[str]:
        """Every file, by its path from the top."""
        return set(self._files)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of one file, at most ``limit`` and one more."""
        return self._files[name][: limit + 1]
