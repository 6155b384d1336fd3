"""Bundles: a run's evidence as a folder that an auditor reads with ls and sha256sum, or as
one zip of it.

FROZEN FORMAT, version 1: docs/FORMAT.md, section 9. What follows from the records (run roots, each
record's way up to one) is not here: a reader works it out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from provenance.bundle import attachments
from provenance.bundle.index import VERSION, decode, dump, encode, equivocation_file, roots_of, sums
from provenance.bundle.readme import readme
from provenance.bundle.sources import MANIFEST, SUMS, FolderSource, stranger
from provenance.bundle.zip import write_zip
from provenance.errors import FormatError, InputError, IntegrityError
from provenance.evidence.run_evidence import RunEvidence
from provenance.files import PRIVATE, PUBLIC, make_folders, temporary_path


def write_bundle(
    evidence: RunEvidence, path: Path, mode: int = PUBLIC, *, ots: bool = False
) -> Path:
    """Write the bundle, whole or not at all, to a folder or a file ending in ``.zip``; an older one
    is replaced. One that replaces what nobody but its owner reads is private too. ``InputError``
    where something is there that is no bundle, or it cannot be written."""
    return write_files(bundle_files(evidence, ots), path, mode)


def write_files(files: Mapping[str, bytes], path: Path, mode: int = PUBLIC) -> Path:
    """Write what :func:`bundle_files` made, as :func:`write_bundle` does."""
    path = path.absolute()
    if path.exists() and not path.stat().st_mode & 0o077:
        mode = PRIVATE
    if path.suffix.lower() == ".zip" and not path.is_dir():
        write_zip(files, path, mode)
    else:
        _write_folder(files, path, mode)
    return path


def _write_folder(files: Mapping[str, bytes], folder: Path, mode: int) -> None:
    if folder.exists() or folder.is_symlink():
        _check_replaceable(folder)
    partial, old = temporary_path(folder), temporary_path(folder)
    try:
        for name, data in files.items():
            file = partial / name
            make_folders(file.parent, mode)
            with open(file, "wb", opener=lambda path, flags: os.open(path, flags, mode)) as output:
                output.write(data)
        if folder.exists():
            folder.rename(old)
        try:
            partial.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def delete_folder(folder: Path) -> None:
    """Delete a bundle's folder; ``InputError`` where it holds anything else."""
    _check_replaceable(folder)
    shutil.rmtree(folder)


def _check_replaceable(folder: Path) -> None:
    """An empty folder is replaced, and a bundle with nothing beside its own files."""
    problem = f"{folder}: holds something that is no bundle; nothing was overwritten"
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(problem)
    if not any(folder.iterdir()):
        return
    try:
        other = stranger(FolderSource(folder))
    except (InputError, FormatError, IntegrityError) as error:
        raise InputError(f"{problem} ({error})") from error
    if other is not None:
        raise InputError(f"{problem} ({other} is not the bundle's, or is missing)")


def bundle_files(evidence: RunEvidence, ots: bool = False) -> dict[str, bytes]:
    """All files of a bundle by path; ``ots`` as for :func:`provenance.bundle.attachments.files`.
    ``InputError`` for a name in the evidence that no bundle may have."""
    files = {"run.json": encode(evidence)}
    files |= {r.file: r.data for r in evidence.records if r.data is not None and not r.withheld}
    files |= {receipt.file: receipt.data for receipt in evidence.receipts}
    files |= {f"heads/{head.size}.note": head.note.encode() for head in evidence.heads}
    files |= {equivocation_file(o): o.data for o in evidence.equivocations if o.data}
    files |= attachments.files(evidence, ots)
    if evidence.vkey is not None:
        files["ledger.vkey"] = evidence.vkey.encode() + b"\n"
    files["README.txt"] = readme(evidence, files.keys()).encode()
    try:
        decode(files["run.json"])  # Names and numbers that a reader would refuse.
    except FormatError as error:
        raise InputError(f"bundle: {error}") from error
    listed = [
        {"path": name, "sha256": _sha256(data), "size": len(data)}
        for name, data in sorted(files.items())
    ]
    manifest = {"version": VERSION, "run": str(evidence.run), "roots": roots_of(evidence)}
    files[MANIFEST] = dump(manifest | {"files": listed})
    files[SUMS] = sums({name: _sha256(data) for name, data in files.items()})
    return files


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
