"""Files behind a URL (``s3://``, ``gs://``, ``memory://``, ``file://``), read through fsspec.

Their leaves are those of file_tree.py: the same files have the same digest wherever they lie. The
content counts, never the URL. Messages name a URL without the credentials in it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any, Final

from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.arrays import load
from provenance.fingerprint.data.progress import Progress
from provenance.fingerprint.file_tree import FileLeaf
from provenance.fingerprint.hashers import HashFactory

_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(?:::[a-zA-Z0-9+.-]+)*://")
_PIECE: Final = 8 << 20
_VERSION_KEYS: Final = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created", "size")


def is_url(text: str) -> bool:
    """True for a text that begins with a scheme and ``://``."""
    return _URL.match(text) is not None


def url_files(url: str, factory: HashFactory, progress: Progress) -> tuple[str, list[FileLeaf]]:
    """``folder`` or ``files``, and the leaves of what lies at ``url``.

    Raises:
        MissingExtraError: fsspec is not installed.
        InputError: nothing is there, it cannot be read, or it changed while it was read.
    """
    core = load("fsspec.core")
    shown = without_secrets(url)
    try:
        system, path = core.url_to_fs(url)
        found = system.info(path)
        if found["type"] != "directory":
            name = posixpath.basename(without_secrets(path) if is_url(path) else path)
            return "files", [_leaf(system, path, name, factory, progress)]
        leaves = list(_folder(system, path, factory, progress))
        return "folder", sorted(leaves, key=lambda leaf: leaf.path.encode())
    except ProvenanceError:
        raise
    # Each store's client raises errors of its own (botocore's are no OSError), with secrets in it.
    except Exception as error:  # noqa: BLE001  translated at the edge, whatever it is
        reason = f"{type(error).__name__}: {error}".replace(url, shown)
        raise InputError(
            f"cannot read {shown!r} through fsspec: {without_secrets(reason)}"
        ) from None


def without_secrets(text: str) -> str:
    """Without ``user:password@`` and queries, where a signed URL has its signature."""
    return re.sub(r"(://)[^/@\s]*@", r"\1", re.sub(r"\?\S*", "", text))


def _folder(system: Any, path: str, factory: HashFactory, progress: Progress) -> Iterator[FileLeaf]:
    root = path.rstrip("/") + "/"
    for place, found in system.find(path, detail=True).items():
        if place.endswith("/") and not found.get("size"):
            continue  # a key that stands for a folder, as consoles of object stores make
        name = place if place.startswith(root) else place.lstrip("/")
        name = name.removeprefix(root).removeprefix(root.lstrip("/"))
        yield _leaf(system, place, name, factory, progress)


def _leaf(system: Any, path: str, name: str, factory: HashFactory, progress: Progress) -> FileLeaf:
    before = system.info(path)
    hasher, size = factory.new(int(before.get("size") or 0)), 0
    progress.part(name, int(before.get("size") or 0))
    with system.open(path, "rb") as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
            size += len(piece)
            progress.add(len(piece))
    system.invalidate_cache()
    after = system.info(path)
    stated = before.get("size")
    changed = any(before.get(key) != after.get(key) for key in _VERSION_KEYS)
    if changed or stated not in (None, size):
        raise InputError(f"data file {without_secrets(path)!r}: changed while it was read")
    return FileLeaf(name, size, factory.wrap(hasher.digest()))
