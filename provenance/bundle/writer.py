"""Bundles: a run's evidence as a folder that an auditor reads with ls and sha256sum, or as
one zip of it.

FROZEN FORMAT, version 1::

    manifest.json            {"version": 1, "run", "roots": {seal: hex},
                              "files": [{"path", "sha256", "size"}]}: every other file
    SHA256SUMS               the same for ``sha256sum -c``, manifest.json included
    run.json                 what is known beside the records (:mod:`.index`)
    records/<path>.json      a record's canonical bytes, exactly; <path> is its path in the
                             run tree, or control/, late/ or unsealed/<producer>-<seq>; absent
                             where run.json says that it is withheld
    proofs/<path>.json       RunProof of the record to the newest run root
    receipts/<seal>-<network>.json
    records/<path>.json.ots, heads/<size>.root, heads/<size>.root.ots, tlog/, statement/
                             for other people's tools (:mod:`.attachments`)
    heads/<size>.note        signed heads of the ledger
    equivocations/<producer>-<seq>-<digest>.json
    ledger.vkey              the key that signs the heads
    README.txt               how to check all this by hand

A reader refuses links, special files, paths that climb, sizes beyond the limits and unknown
versions. A file that does not match the manifest, is missing or is not listed becomes a
problem that names it, so that the rest is still checked. A zip has further limits
(:mod:`.zip`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from provenance.bundle import attachments
from provenance.bundle.index import (
    VERSION,
    decode,
    dump,
    encode,
    equivocation_file,
    roots_of,
    sums,
)
from provenance.bundle.readme import readme
from provenance.bundle.sources import MANIFEST, SUMS
from provenance.bundle.zip import write_zip
from provenance.errors import FormatError, InputError
from provenance.evidence.placement import tree_at
from provenance.evidence.run_evidence import RunEvidence
from provenance.files import temporary_path
from provenance.formats.run_tree.proof import RunProof
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree


def write_bundle(evidence: RunEvidence, path: Path) -> Path:
    """Write the bundle, whole or not at all; an older bundle is replaced.

    Args:
        path: A folder, or a file ending in ``.zip``.

    Raises:
        InputError: The path has something that is no bundle, or cannot be written.
    """
    return write_files(bundle_files(evidence), path)


def write_files(files: Mapping[str, bytes], path: Path) -> Path:
    """Write what :func:`bundle_files` made, as :func:`write_bundle` does."""
    path = path.absolute()
    if path.suffix.lower() == ".zip" and not path.is_dir():
        write_zip(files, path)
    else:
        _write_folder(files, path)
    return path


def _write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    if folder.exists() and not _may_replace(folder):
        raise InputError(f"{folder}: holds something that is no bundle; nothing was overwritten")
    partial, old = temporary_path(folder), temporary_path(folder)
    try:
        for name, data in files.items():
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
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


def _may_replace(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    return not names or {MANIFEST, SUMS, "run.json"} <= names


def bundle_files(evidence: RunEvidence) -> dict[str, bytes]:
    """All files of a bundle by path, in the order of the format.

    Raises:
        InputError: A name in the evidence that no bundle may have.
    """
    files = {"run.json": encode(evidence)}
    files |= {r.file: r.data for r in evidence.records if r.data is not None and not r.withheld}
    proofs = _proofs(evidence)
    for path, proof in proofs.items():
        files[f"proofs/{path}.json"] = json.dumps(proof.to_json(), indent=1).encode() + b"\n"
    files |= {receipt.file: receipt.data for receipt in evidence.receipts}
    files |= {f"heads/{head.size}.note": head.note.encode() for head in evidence.heads}
    files |= {equivocation_file(o): o.data for o in evidence.equivocations if o.data}
    files |= attachments.files(evidence, proofs)
    if evidence.vkey is not None:
        files["ledger.vkey"] = evidence.vkey.encode() + b"\n"
    files["README.txt"] = readme(evidence, proofs, files.keys()).encode()
    try:
        decode(files["run.json"])  # Names and numbers that a reader would refuse.
    except FormatError as error:
        raise InputError(f"bundle: {error}") from error
    files[MANIFEST] = dump(
        {
            "version": VERSION,
            "run": str(evidence.run),
            "roots": roots_of(evidence),
            "files": [
                {"path": name, "sha256": _sha256(data), "size": len(data)}
                for name, data in sorted(files.items())
            ],
        }
    )
    files[SUMS] = sums({name: _sha256(data) for name, data in files.items()})
    return files


def _proofs(evidence: RunEvidence) -> dict[str, RunProof]:
    tree = newest_tree(evidence)
    if tree is None:
        return {}
    known = {node.path: node.value for node in tree.root_node.walk() if node.kind == "record"}
    return {
        record.path: tree.proof(record.path)
        for record in evidence.records
        if known.get(record.path) == record.digest
    }


def newest_tree(evidence: RunEvidence) -> MLProvenanceMerkleTree | None:
    """The run tree at the newest seal; None without a seal, or where none can be built."""
    if not evidence.entries:
        return None
    digested = [record.digested(evidence.run) for record in evidence.records]
    try:
        return tree_at(digested, evidence.entries, evidence.entries[-1])
    except InputError:
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
