"""Bundles: a run's evidence as a folder that an auditor reads with ls and sha256sum.

FROZEN FORMAT, version 1::

    manifest.json            {"version": 1, "run", "roots": {seal: hex},
                              "files": [{"path", "sha256", "size"}]}: every other file
    SHA256SUMS               the same for ``sha256sum -c``, manifest.json included
    run.json                 what is known beside the records (:mod:`.run_file`)
    records/<path>.json      a record's canonical bytes, exactly; <path> is its place in the
                             run tree, or control/, late/ or unsealed/<producer>-<seq>
    proofs/<path>.json       RunProof of the record to the newest run root
    receipts/<seal>-<network>.json
    heads/<size>.note        signed heads of the ledger
    equivocations/<producer>-<seq>-<digest>.json
    ledger.vkey              the key that signs the heads
    README.txt               how to check all this by hand

A reader refuses links, special files, paths that climb, sizes beyond the limits and unknown
versions. A file that does not match the manifest, is missing or is not listed becomes a
problem that names it, so that the rest is still checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import UUID

from provenance.core.heads import MAX_NOTE_BYTES
from provenance.core.merkle_tree import MLProvenanceMerkleTree
from provenance.core.receipts import MAX_RECEIPT_BYTES
from provenance.core.records import MAX_RECORD_BYTES
from provenance.core.run_proofs import MAX_PROOF_BYTES, RunProof
from provenance.errors import FormatError, InputError, IntegrityError, TooLargeError
from provenance.ports import Equivocation
from provenance.verify.bundle_readme import readme
from provenance.verify.evidence import (
    EvidenceProblem,
    HeadNote,
    ReceiptFile,
    RunEvidence,
    Source,
    seal_label,
)
from provenance.verify.places import tree_at
from provenance.verify.run_file import SAFE_PATH, VERSION, decode, dump, encode, load

MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
MAX_FILES: Final = 200_000
MAX_TOTAL_BYTES: Final = 4 * 1024**3
MAX_INDEX_BYTES: Final = 256 * 1024**2
_LIMITS: Final = {
    "records": MAX_RECORD_BYTES,
    "equivocations": MAX_RECORD_BYTES,
    "proofs": MAX_PROOF_BYTES,
    "receipts": MAX_RECEIPT_BYTES,
    "heads": MAX_NOTE_BYTES,
    "ledger.vkey": 4096,
    "README.txt": 1024**2,
}
"""Bytes by first part of the path; all other files have the index's limit."""


# --- writing -----------------------------------------------------------------------------


def write_bundle(evidence: RunEvidence, folder: Path) -> Path:
    """Write the bundle, whole or not at all; a bundle that is there is replaced.

    Raises:
        InputError: The folder holds something that is no bundle, or cannot be written.
    """
    files = _files(evidence)
    folder = folder.absolute()
    if folder.exists() and not _may_replace(folder):
        raise InputError(f"{folder}: holds something that is no bundle; nothing was overwritten")
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    try:
        for name, data in files.items():
            place = partial / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _may_replace(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    return not names or {MANIFEST, SUMS, "run.json"} <= names


def _files(evidence: RunEvidence) -> dict[str, bytes]:
    """All files by path, in the order of the format."""
    files = {"run.json": encode(evidence)}
    files |= {r.file: r.data for r in evidence.records if r.data is not None}
    proofs = _proofs(evidence)
    for path, proof in proofs.items():
        files[f"proofs/{path}.json"] = json.dumps(proof.to_json(), indent=1).encode() + b"\n"
    files |= {receipt.file: receipt.data for receipt in evidence.receipts}
    files |= {f"heads/{head.size}.note": head.note.encode() for head in evidence.heads}
    files |= {_equivocation_file(other): other.data for other in evidence.equivocations}
    if evidence.vkey is not None:
        files["ledger.vkey"] = evidence.vkey.encode() + b"\n"
    files["README.txt"] = readme(evidence, proofs).encode()
    for name in files:
        if not SAFE_PATH.fullmatch(name):
            raise InputError(f"bundle: {name[:80]!r} cannot be the name of a file in it")
    files[MANIFEST] = dump(
        {
            "version": VERSION,
            "run": str(evidence.run),
            "roots": _roots(evidence),
            "files": [
                {"path": name, "sha256": _sha256(data), "size": len(data)}
                for name, data in sorted(files.items())
            ],
        }
    )
    files[SUMS] = _sums({name: _sha256(data) for name, data in files.items()})
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


def _roots(evidence: RunEvidence) -> dict[str, str]:
    return {seal_label(entry): entry.root.hex() for entry in evidence.entries}


def _sums(digests: Mapping[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def _equivocation_file(other: Equivocation) -> str:
    return f"equivocations/{other.producer.hex()}-{other.seq}-{other.digest.hex()[:16]}.json"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- reading -----------------------------------------------------------------------------


def read_bundle(folder: Path) -> RunEvidence:
    """Read a bundle; what does not match is in ``problems``, by file.

    Raises:
        InputError: There is no bundle.
        FormatError: The manifest or ``run.json`` does not decode, a limit is passed.
        IntegrityError: A link or special file, or a path that leads out.
    """
    reader = _Reader(folder)
    known = decode(reader.take("run.json"))
    if known.run != reader.run:
        raise IntegrityError(f"run.json: is of run {known.run}, the manifest of {reader.run}")
    evidence = RunEvidence(
        run=known.run,
        public_key=known.public_key,
        state=known.state,
        incomplete=known.incomplete,
        created_at=known.created_at,
        sealed_at=known.sealed_at,
        records=tuple(
            replace(item, data=reader.record(item.file, item.digest)) for item in known.records
        ),
        entries=known.entries,
        inclusions=known.inclusions,
        consistencies=known.consistencies,
        heads=tuple(
            HeadNote(size, text)
            for size in known.heads
            if (text := reader.text(f"heads/{size}.note")) is not None
        ),
        vkey=reader.vkey(),
        receipts=tuple(
            ReceiptFile(name, data)
            for name in known.receipts
            if (data := reader.find(f"receipts/{name}.json")) is not None
        ),
        anchors=known.anchors,
        equivocations=tuple(
            replace(item, data=reader.hashed(_equivocation_file(item), item.digest))
            for item in known.equivocations
        ),
        parked=known.parked,
        proofs={
            item.path: proof
            for item in known.records
            if (proof := reader.proof(f"proofs/{item.path}.json", item.path)) is not None
        },
        problems=(),
        source=Source("bundle", str(folder)),
    )
    if _roots(evidence) != reader.roots:
        reader.problem(MANIFEST, "its roots are not those of run.json")
    reader.check_rest()
    return replace(evidence, problems=tuple(reader.problems.values()))


class _Reader:
    """The files of one bundle, each read once, with what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: dict[str, EvidenceProblem] = {}
        self.total = 0
        if not (folder / MANIFEST).is_file():
            raise InputError(f"{folder}: not a bundle, there is no {MANIFEST}")
        self.present = self._walk()
        data = self._read(MANIFEST)
        manifest = load(data, MANIFEST)
        self.run = manifest.one_of("run", UUID)
        self.roots = manifest.raw.get("roots")
        self.listed: dict[str, tuple[bytes, int]] = {}
        for item in manifest.objects("files"):
            name = item.path("path")
            if name in self.listed:
                raise FormatError(f"{MANIFEST}: {name} is listed twice")
            self.listed[name] = (item.hex("sha256", 32), item.integer("size"))
        self._check_sums(data)
        self.unread = set(self.listed)

    def problem(self, name: str, message: str, path: str | None = None) -> None:
        """Remember what is wrong with a file; the first problem of a file stands."""
        self.problems.setdefault(name, EvidenceProblem(name, message, path))

    def take(self, name: str) -> bytes:
        """A file that a bundle must have.

        Raises:
            IntegrityError: It is missing.
        """
        data = self.find(name)
        if data is None:
            raise IntegrityError(f"{name}: is missing from the bundle")
        return data

    def find(self, name: str) -> bytes | None:
        """A file's bytes, held against the manifest; None where it is missing."""
        self.unread.discard(name)
        if name not in self.present:
            self.problem(name, "is missing from the bundle")
            return None
        data = self._read(name)
        self._compare(name, data)
        return data

    def record(self, name: str, digest: bytes) -> bytes | None:
        """A record's bytes. That it is missing, or has another digest, is for the verifier."""
        self.unread.discard(name)
        if name not in self.present:
            return None
        data = self._read(name)
        if hashlib.sha256(data).digest() == digest:
            self._compare(name, data)
        return data

    def hashed(self, name: str, digest: bytes) -> bytes:
        """A file that ``run.json`` knows by its digest; empty where it is missing."""
        data = self.find(name)
        if data is not None and hashlib.sha256(data).digest() != digest:
            self.problem(name, f"SHA-256 is not {digest.hex()}, as run.json says")
        return data or b""

    def _compare(self, name: str, data: bytes) -> None:
        stated = self.listed.get(name)
        found = hashlib.sha256(data).digest()
        if stated is None:
            self.problem(name, "is not listed in the manifest")
        elif stated != (found, len(data)):
            self.problem(
                name,
                f"SHA-256 is {found.hex()} of {len(data)} bytes, "
                f"the manifest says {stated[0].hex()} of {stated[1]}",
            )

    def text(self, name: str) -> str | None:
        """A text file; None where it is missing or not UTF-8."""
        data = self.find(name)
        if data is None:
            return None
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.problem(name, "is not UTF-8 text")
            return None

    def vkey(self) -> str | None:
        """The ledger's key, where the bundle has one."""
        if "ledger.vkey" not in self.listed and "ledger.vkey" not in self.present:
            return None
        text = self.text("ledger.vkey")
        return None if text is None else text.removesuffix("\n")

    def proof(self, name: str, path: str) -> RunProof | None:
        """A record's proof, where the bundle has one; one that does not decode is a problem."""
        if name not in self.listed and name not in self.present:
            return None
        data = self.find(name)
        if data is None or name in self.problems:
            return None
        try:
            proof = RunProof.from_json(data)
        except FormatError as error:
            self.problem(name, str(error))
            return None
        if proof.path != path:
            self.problem(name, f"is the proof of {proof.path}")
            return None
        return proof

    def check_rest(self) -> None:
        """Files nobody asked for: compare them with the manifest too."""
        for name in sorted(self.unread):
            self.find(name)
        for name in sorted(self.present - set(self.listed) - {MANIFEST, SUMS}):
            self.problem(name, "is not listed in the manifest")

    def _check_sums(self, manifest: bytes) -> None:
        digests = {name: digest.hex() for name, (digest, _) in self.listed.items()}
        expected = _sums(digests | {MANIFEST: _sha256(manifest)})
        if SUMS not in self.present:
            self.problem(SUMS, "is missing from the bundle")
        elif self._read(SUMS) != expected:
            self.problem(SUMS, f"does not fit {MANIFEST}: one of the two was changed")

    def _walk(self) -> set[str]:
        found: set[str] = set()
        folders = [""]
        while folders:
            prefix = folders.pop()
            try:
                entries = sorted(os.scandir(self.folder / prefix), key=lambda e: e.name)
            except OSError as error:
                raise FormatError(f"{prefix or '.'}: cannot be read: {error.strerror}") from error
            for entry in entries:
                name = f"{prefix}/{entry.name}" if prefix else entry.name
                if entry.is_symlink():
                    raise IntegrityError(f"{name}: is a link; a bundle has none")
                if not SAFE_PATH.fullmatch(name):
                    raise IntegrityError(f"{name[:120]!r}: not a name that a bundle has")
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_file(follow_symlinks=False):
                    found.add(name)
                else:
                    raise IntegrityError(f"{name}: is neither a file nor a folder")
                if len(found) + len(folders) > MAX_FILES:
                    raise TooLargeError(f"bundle: more than {MAX_FILES} files")
        return found

    def _read(self, name: str) -> bytes:
        limit = _LIMITS.get(name.partition("/")[0], MAX_INDEX_BYTES)
        try:
            descriptor = os.open(
                self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise IntegrityError(f"{name}: is not a regular file")
                data = file.read(limit + 1)
        except OSError as error:
            raise FormatError(f"{name}: cannot be read: {error.strerror}") from error
        self.total += len(data)
        if len(data) > limit or self.total > MAX_TOTAL_BYTES:
            raise TooLargeError(f"{name}: more than {min(limit, MAX_TOTAL_BYTES)} bytes")
        return data
