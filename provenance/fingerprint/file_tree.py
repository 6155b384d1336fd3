"""Files and folders as leaves of a dataset digest.

WARNING: FROZEN FORMAT. The leaf of a file is the RFC 8785 JSON of

    {"digest": "blake3:...", "path": "train/0001.png", "size": 4711}

with the content digest, the POSIX path below the folder and the size in bytes. Nothing else of
a file counts: no times, no modes, no empty folders. These functions read the files that they are
given; that is all the I/O there is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import canonical
from provenance.fingerprint.hashers import Digest, Hasher, HashFactory, hash_file

_VERSION: Final = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
"""What changes where a file is another one, or was written to."""


@dataclass(frozen=True, slots=True)
class FileLeaf:
    """One file of a dataset: its POSIX path below the folder, bytes, and content digest."""

    path: str
    size: int
    digest: Digest

    def data(self) -> bytes:
        """Leaf data: the RFC 8785 bytes of digest, path and size."""
        return canonical({"digest": str(self.digest), "path": self.path, "size": self.size})


def file_leaf(path: Path, name: str, factory: HashFactory) -> FileLeaf:
    """Hash a file. Raises InputError: it cannot be read, is no regular file, or changed while it
    was read; or ``name`` is not Unicode."""
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise InputError(f"data file {name!r}: its name is not UTF-8")
    size, digest = hash_unchanged(path, factory.new)
    return FileLeaf(name, size, factory.wrap(digest))


def hash_unchanged(path: Path, begun: Callable[[int], Hasher]) -> tuple[int, bytes]:
    """Bytes of a file, and its digest by `hash_file`. Raises InputError: it cannot be read, is no
    regular file, or changed while it was read."""
    before = _status(path)
    if not stat.S_ISREG(before.st_mode):
        raise InputError(f"data file {str(path)!r}: not a regular file")
    digest = hash_file(path, begun)
    after = _status(path)
    if any(getattr(before, name) != getattr(after, name) for name in _VERSION):
        raise InputError(f"data file {str(path)!r}: changed while it was read")
    return before.st_size, digest


def folder_files(folder: Path) -> list[tuple[str, Path]]:
    """POSIX path and place of each file below ``folder``, sorted by the path's UTF-8 bytes.

    A link to a file inside the folder counts as a file with that content. Raises InputError: a
    folder cannot be listed, or a link leads out of ``folder``, to a folder, or nowhere."""
    found = _walk(folder, "", Path(os.path.realpath(folder)))
    return sorted(found, key=lambda item: os.fsencode(item[0]))


def _walk(folder: Path, prefix: str, root: Path) -> Iterator[tuple[str, Path]]:
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError as error:
        raise InputError(f"cannot list {str(folder)!r}: {error.strerror or error}") from error
    for entry in listed:
        name, path = prefix + entry.name, Path(entry.path)
        if entry.is_symlink():
            target = Path(os.path.realpath(path))
            if not target.is_relative_to(root):
                raise InputError(f"link {str(path)!r} leads out of the folder, to {str(target)!r}")
            if target.is_dir():
                raise InputError(f"link {str(path)!r} leads to a folder, expected a file")
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, name + "/", root)
        else:
            yield name, path


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:  # a zero byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {str(path)!r}: {reason}") from error
