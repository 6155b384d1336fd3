"""A bundle, read: every file is compared with the manifest, and a file that differs is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from provenance.bundle import sources
from provenance.bundle.attachments import is_attachment
from provenance.bundle.index import decode, equivocation_file, load, read_path, roots_of, sums
from provenance.bundle.zip import ZipSource
from provenance.errors import FormatError, InputError, IntegrityError, TooLargeError
from provenance.evidence.ledger_claim import own_problem
from provenance.evidence.run_evidence import (
    EvidenceProblem,
    RecordFile,
    RunEvidence,
    Source,
    uncollected,
)


@uncollected()
def read_bundle(path: Path | sources.FileSource) -> RunEvidence:
    """Read a bundle, a folder or a zip file; what does not match is in ``problems``, by file.
    ``InputError`` where there is none, ``FormatError`` where the manifest or ``run.json`` does not
    decode or a limit is passed, ``IntegrityError`` for a link or a path that leads out."""
    if not isinstance(path, Path):
        return _read(path)
    if not path.exists():
        raise InputError(f"{path}: not a bundle, there is no such folder or file")
    if path.is_dir():
        return _read(sources.FolderSource(path))
    with ZipSource(path) as archive:
        return _read(archive)


def _read(source: sources.FileSource) -> RunEvidence:
    files = BundleFiles(source)
    stated, withheld = decode(files.take("run.json"))
    if stated.run != files.run:
        raise IntegrityError(f"run.json: is of run {stated.run}, the manifest of {files.run}")
    evidence = replace(
        stated,
        records=tuple(_record(files, item) for item in stated.records),
        heads=tuple(
            replace(head, note=text)
            for head in stated.heads
            if (text := files.text(f"heads/{head.size}.note")) is not None
        ),
        vkey=files.vkey(),
        receipts=tuple(
            replace(receipt, data=data)
            for receipt in stated.receipts
            if (data := files.find(receipt.file)) is not None
        ),
        equivocations=tuple(
            item
            if item in withheld
            else replace(item, data=files.hashed(equivocation_file(item), item.digest))
            for item in stated.equivocations
        ),
        source=Source("bundle", source.where),
        attachments=files.attachments(),
    )
    whole = evidence.state == "sealed" and evidence.incomplete is None
    own = tuple(entry.index for entry in evidence.entries)
    if problem := own_problem(evidence.ledger, evidence.run, whole, own):
        files.problem("run.json", problem)
    if roots_of(evidence) != files.roots:
        files.problem(sources.MANIFEST, "its roots are not those of run.json")
    files.check_rest()
    return replace(evidence, problems=tuple(files.problems.values()))


def _record(files: BundleFiles, item: RecordFile) -> RecordFile:
    if item.withheld:
        files.withheld(item.file, item.path)
        return item
    return replace(item, data=files.record(item.file, item.digest))


class BundleFiles:
    """The files of one bundle, each read once, with what is wrong with them."""

    def __init__(self, source: sources.FileSource) -> None:
        self.source = source
        self.problems: dict[str, EvidenceProblem] = {}
        self.total = 0
        self.present = source.names()
        seen: dict[str, bool] = {}
        for name in sorted(self.present):
            sources.check_alone(name, seen)
        data = self._read(sources.MANIFEST)
        manifest = load(data, sources.MANIFEST, "run", "roots", "files")
        self.run = manifest.uuid("run")
        self.roots = manifest.raw.get("roots")
        self.listed: dict[str, tuple[bytes, int]] = {}
        for item in manifest.objects("files", "path", "sha256", "size"):
            name = read_path(item, "path")
            if name in self.listed:
                raise FormatError(f"{sources.MANIFEST}: {name} is listed twice")
            self.listed[name] = (item.hex("sha256", 32), item.integer("size"))
        self._check_sums(data)
        self.unread = set(self.listed)

    def problem(self, name: str, message: str, path: str | None = None) -> None:
        """Remember what is wrong with a file; the first problem of a file stands."""
        self.problems.setdefault(name, EvidenceProblem(name, message, path))

    def take(self, name: str) -> bytes:
        """A file that a bundle must have, or ``IntegrityError``."""
        data = self.find(name)
        if data is None:
            raise IntegrityError(f"{name}: is missing from the bundle")
        return data

    def find(self, name: str) -> bytes | None:
        """A file's bytes, compared with the manifest; None where it is missing."""
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

    def withheld(self, name: str, path: str) -> None:
        """A record that run.json calls withheld must not be here: one of the two is wrong."""
        self.unread.discard(name)
        if self._has(name):
            self.problem(name, "is here, and run.json says that it is withheld", path)

    def hashed(self, name: str, digest: bytes) -> bytes:
        """A file that ``run.json`` knows by its digest; empty where it is missing."""
        data = self.find(name)
        if data is not None and hashlib.sha256(data).digest() != digest:
            self.problem(name, f"SHA-256 is not {digest.hex()}, as run.json says")
        return data or b""

    def _has(self, name: str) -> bool:
        return name in self.listed or name in self.present

    def _compare(self, name: str, data: bytes) -> None:
        stated = self.listed.get(name)
        digest = hashlib.sha256(data).digest()
        if stated is None:
            self.problem(name, "is not listed in the manifest")
        elif stated != (digest, len(data)):
            found = f"SHA-256 is {digest.hex()} of {len(data)} bytes"
            self.problem(name, f"{found}, the manifest says {stated[0].hex()} of {stated[1]}")

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
        text = self.text("ledger.vkey") if self._has("ledger.vkey") else None
        return None if text is None else text.removesuffix("\n")

    def attachments(self) -> dict[str, bytes]:
        """The files for other people's tools."""
        names = sorted(filter(is_attachment, self.listed))
        return {name: data for name in names if (data := self.find(name)) is not None}

    def check_rest(self) -> None:
        """Files nobody asked for: compare them with the manifest too."""
        for name in sorted(self.unread):
            if self.find(name) is not None and name != "README.txt":
                self.problem(name, "run.json does not know it")
        for name in sorted(self.present - set(self.listed) - {sources.MANIFEST, sources.SUMS}):
            self.problem(name, "is not listed in the manifest")

    def _check_sums(self, manifest: bytes) -> None:
        digests = {name: digest.hex() for name, (digest, _) in self.listed.items()}
        expected = sums(digests | {sources.MANIFEST: hashlib.sha256(manifest).hexdigest()})
        if sources.SUMS not in self.present:
            self.problem(sources.SUMS, "is missing from the bundle")
        elif self._read(sources.SUMS) != expected:
            self.problem(
                sources.SUMS, f"does not fit {sources.MANIFEST}: one of the two was changed"
            )

    def _read(self, name: str) -> bytes:
        limit = sources.limit_of(name, len(self.present))
        data = self.source.read(name, limit)
        self.total += len(data)
        if len(data) > limit or self.total > sources.MAX_TOTAL_BYTES:
            raise TooLargeError(f"{name}: more than {min(limit, sources.MAX_TOTAL_BYTES)} bytes")
        return data
