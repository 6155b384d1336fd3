"""OpenSSF Model Signing: which files of a model are signed, and what the signature says.

As the reference implementation (``model_signing`` 1.1) does it with serialization ``files``:

- every regular file below the folder counts, hidden ones too, by its POSIX path; a link or a
  special file anywhere is refused, since verifiers refuse it
- left out are ``.git``, ``.github``, ``.gitattributes`` and ``.gitignore`` at the top, and the
  signature where it lies inside
- resources stand in the order of their paths' parts; the subject's digest is the SHA-256 of
  the SHA-256 digests in that order
- a single file is a model too: one resource, named ``.``

The predicate (https://model_signing/signature/v1.0) has one more field, ``provenance``, which
verifiers of v1.0 ignore and the signature covers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provenance.errors import InputError
from provenance.fingerprint.file_tree import FileLeaf, file_leaf
from provenance.fingerprint.hashers import HashFactory
from provenance.formats.dsse import Statement, Subject
from provenance.formats.record import Json

PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
GIT_PATHS: Final = (".git", ".gitattributes", ".github", ".gitignore")

_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file to sign, and what tells that it is still the same one."""

    name: str
    path: Path
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The files of a model that a signature covers, and the paths that it leaves out."""

    path: Path
    ignored: tuple[str, ...]
    files: tuple[ListedFile, ...]

    @property
    def name(self) -> str:
        """The last part of the path; informative alone."""
        return self.path.name if self.path.name not in ("", "..") else self.path.resolve().name

    def statement(self, provenance: Mapping[str, Json]) -> bytes:
        """Hash all files; the statement to sign.

        Raises:
            InputError: A file cannot be read, or was changed, added or removed meanwhile.
        """
        leaves = self._hashed()
        if list_model(self.path, self.ignored).files != self.files:
            raise InputError(f"{self.path}: changed while it was signed")
        total = hashlib.sha256(b"".join(leaf.digest.value for leaf in leaves)).hexdigest()
        resources: list[Json] = [
            {"name": leaf.path, "algorithm": "sha256", "digest": leaf.digest.value.hex()}
            for leaf in leaves
        ]
        serialization: dict[str, Json] = {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": list(self.ignored),
        }
        return Statement(
            subjects=[Subject(self.name, {"sha256": total})],
            predicate_type=PREDICATE_TYPE,
            predicate={
                "serialization": serialization,
                "resources": resources,
                "provenance": dict(provenance),
            },
        ).encode()

    def _hashed(self) -> list[FileLeaf]:
        factory = HashFactory("sha256")
        workers = max(1, min(_THREADS, os.cpu_count() or 1, len(self.files)))
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda f: file_leaf(f.path, f.name, factory), self.files))


def ignored_paths(model: Path, signature: Path) -> tuple[str, ...]:
    """What is left out: git's files, and the signature where it lies in the folder."""
    place = signature.parent.resolve() / signature.name
    root = model.resolve()
    inside = model.is_dir() and place.is_relative_to(root)
    own = (place.relative_to(root).as_posix(),) if inside else ()
    return tuple(sorted({*GIT_PATHS, *own}))


def list_model(model: Path, ignored: Sequence[str]) -> ModelFolder:
    """Find the files to sign.

    Raises:
        InputError: No such file or folder, no file in it, a link or special file, or a
            folder that cannot be listed.
    """
    if model.is_symlink():
        raise InputError(f"{model}: is a link; verifiers of model signatures refuse links")
    if model.is_file():
        found = [_listed(model, ".")]
    elif model.is_dir():
        found = [item for item in _walk(model, "") if not _is_ignored(item.name, ignored)]
    else:
        raise InputError(f"{model}: no such file or folder")
    if not found:
        raise InputError(f"{model}: holds no files to sign")
    files = tuple(sorted(found, key=lambda item: item.name.split("/")))
    return ModelFolder(model, tuple(ignored), files)


def _is_ignored(name: str, ignored: Sequence[str]) -> bool:
    return any(name == path or name.startswith(path + "/") for path in ignored)


def _walk(folder: Path, prefix: str) -> Iterator[ListedFile]:
    """Also through what is ignored: a verifier refuses a link there too."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    for entry in entries:
        if entry.is_symlink():
            raise InputError(f"{entry.path}: is a link; verifiers of model signatures refuse links")
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            yield _listed(Path(entry.path), prefix + entry.name)
        else:
            raise InputError(f"{entry.path}: is neither a file nor a folder")


def _listed(path: Path, name: str) -> ListedFile:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return ListedFile(name, path, found.st_size, found.st_mtime_ns)
