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
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provenance.errors import InputError
from provenance.files import errors_of
from provenance.fingerprint.file_tree import file_leaf
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
        """Hash all files; the statement to sign, or ``InputError`` where one was changed, added or
        removed meanwhile."""
        factory = HashFactory("sha256")
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            leaves = list(pool.map(lambda f: file_leaf(f.path, f.name, factory), self.files))
        if list_model(self.path, self.ignored).files != self.files:
            raise InputError(f"{self.path}: changed while it was signed")
        total = hashlib.sha256(b"".join(leaf.digest.value for leaf in leaves)).hexdigest()
        how: dict[str, Json] = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        predicate: dict[str, Json] = {
            "serialization": how | {"ignore_paths": list(self.ignored)},
            "resources": [
                {"name": leaf.path, "algorithm": "sha256", "digest": leaf.digest.value.hex()}
                for leaf in leaves
            ],
            "provenance": dict(provenance),
        }
        subjects = [Subject(self.name, {"sha256": total})]
        return Statement(subjects, PREDICATE_TYPE, predicate).encode()


def ignored_paths(model: Path, signature: Path) -> tuple[str, ...]:
    """What is left out: git's files, and the signature where it lies in the folder."""
    path = signature.parent.resolve() / signature.name
    paths = set(GIT_PATHS)
    if model.is_dir() and path.is_relative_to(model.resolve()):
        paths.add(path.relative_to(model.resolve()).as_posix())
    return tuple(sorted(paths))


def list_model(model: Path, ignored: Sequence[str]) -> ModelFolder:
    """Find the files to sign; ``InputError`` where there are none, for a link or special file, and
    a folder that cannot be listed."""
    if not os.path.lexists(model):
        raise InputError(f"{model}: no such file or folder")
    own = _listed(model, ".")
    inside = tuple(f"{path}/" for path in ignored)  # what is ignored, or below that
    found = (item for item in _walk(model) if not f"{item.name}/".startswith(inside))
    files = [own] if own else list(found)
    if not files:
        raise InputError(f"{model}: holds no files to sign")
    files.sort(key=lambda item: item.name.split("/"))
    return ModelFolder(model, tuple(ignored), tuple(files))


def _walk(folder: Path) -> Iterator[ListedFile]:
    """Also through what is ignored: a verifier refuses a link there too."""
    for parent, folders, names in os.walk(folder, onerror=_cannot_list):
        for path in (Path(parent, name) for name in folders + names):
            listed = _listed(path, path.relative_to(folder).as_posix())
            if listed is not None:
                yield listed


def _cannot_list(error: OSError) -> None:
    folder = error.filename
    raise InputError(f"{folder}: cannot be listed: {error.strerror or error}") from error


def _listed(path: Path, name: str) -> ListedFile | None:
    """A file; None for a folder."""
    with errors_of(path, "read"):
        status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise InputError(f"{path}: is a link; verifiers of model signatures refuse links")
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is neither a file nor a folder")
    return ListedFile(name, path, status.st_size, status.st_mtime_ns)
