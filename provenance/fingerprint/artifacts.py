"""Content digests of artifacts: a file, a folder or bytes that a run made or took.

A file's digest is its content digest, as in the leaf of a dataset's file (file_tree.py), a folder's
the root of a dataset of its files (docs/FORMAT.md, section 3.4).
"""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import Any

from provenance.errors import InputError
from provenance.fingerprint.data.parts import DatasetDigest, files_dataset
from provenance.fingerprint.data.progress import Progress
from provenance.fingerprint.data.remote import is_url, url_files, without_secrets
from provenance.fingerprint.datasets import dataset_folder
from provenance.fingerprint.file_tree import file_leaf
from provenance.fingerprint.hashers import HashFactory


def check_artifact(what: object, name: str | None) -> None:
    """Refuse what is neither a path nor bytes, and bytes without a name, with ``InputError``."""
    if isinstance(what, bytes | bytearray | memoryview):
        if not name:
            raise InputError("artifact: found bytes without a name, expected a name for them")
    elif not isinstance(what, str | os.PathLike):
        found = f"artifact: found {type(what).__name__}"
        raise InputError(f"{found}, expected the path or URL of a file or folder, or bytes")


def artifact_fields(what: object, name: str | None, factory: HashFactory) -> dict[str, Any]:
    """An artifact as a record states it: name, digest, bytes, media type where its name tells.

    Args:
        what: The path of a file or folder, its URL (by fsspec), or bytes.
        name: What it is called; the last part of its path where None.

    Raises:
        InputError: Not readable, or an empty folder; as :func:`check_artifact`.
        MissingExtraError: A URL, and fsspec is not installed.
    """
    check_artifact(what, name)
    if isinstance(what, bytes | bytearray | memoryview):
        data = memoryview(what).cast("B") if not isinstance(what, bytes) else what
        fields: dict[str, Any] = {"digest": str(factory.digest(data)), "bytes": len(data)}
    elif isinstance(what, str) and is_url(what):
        name = name or without_secrets(what).rstrip("/").rpartition("/")[2]
        kind, leaves = url_files(what, factory, Progress())
        if kind == "folder":
            return {"name": name, **_folder_fields(files_dataset(kind, name, leaves, factory))}
        fields = {"digest": str(leaves[0].digest), "bytes": leaves[0].size}
    else:
        assert isinstance(what, str | os.PathLike)
        path = Path(os.fsdecode(what))
        name = name or Path(os.path.abspath(path)).name
        if path.is_dir():
            return {"name": name, **_folder_fields(dataset_folder(path, factory, Progress()))}
        leaf = file_leaf(path, name, factory)
        fields = {"digest": str(leaf.digest), "bytes": leaf.size}
    media = mimetypes.guess_type(name or "")[0]
    return {"name": name, **fields} | ({} if media is None else {"media": media})


def _folder_fields(folder: DatasetDigest) -> dict[str, Any]:
    return {"digest": str(folder), "bytes": folder.nbytes, "files": len(folder.parts)}
