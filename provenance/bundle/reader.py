"""The files of a bundle, untrusted, in a folder, a zip or memory."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

from provenance.bundle.attachments import MAX_BYTES, is_attachment
from provenance.bundle.index import SAFE_PATH, load, read_path
from provenance.errors import FormatError, InputError, IntegrityError, TooLargeError
from provenance.evidence.run_evidence import EvidenceProblem
from provenance.formats.note import MAX_NOTE_BYTES
from provenance.formats.receipt import MAX_RECEIPT_BYTES
from provenance.formats.record import MAX_RECORD_BYTES
from provenance.formats.run_tree.proof import MAX_PROOF_BYTES, RunProof

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


def limit_of(name: str) -> int:
    """The most bytes that a bundle's file may have."""
    if is_attachment(name):
        return MAX_BYTES
    return _LIMITS.get(name.partition("/")[0], MAX_INDEX_BYTES)


def check_name(name: str) -> str:
    """A file's name, where a bundle may have it.

    Raises:
        IntegrityError: It climbs, is absolute, hidden, too deep, or not plain ASCII.
    """
    if not SAFE_PATH.fullmatch(name):
        raise IntegrityError(f"{name[:120]!r}: not a name that a bundle has")
    return name


def check_alone(name: str, seen: dict[str, bool]) -> None:
    """No two files that a file system could take for one: letters' case counts nothing.

    Args:
        name: A folder's ends with ``/``.
        seen: What was checked before, and whether it is a folder; ``name`` is added.

    Raises:
        IntegrityError: Another has this name, or is a file where this one has a folder.
    """
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
        """All files, by path inside the bundle.

        Raises:
            FormatError, TooLargeError, IntegrityError: A link, a special file, a name that a
                bundle does not have.
        """

    def read(self, name: str, limit: int) -> bytes:
        """The first ``limit`` + 1 bytes of a file.

        Raises:
            FormatError: It cannot be read; the message names it.
        """


class FolderSource:
    """A bundle as a folder.

    Raises:
        InputError: There is no manifest.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / MANIFEST).is_file():
            raise InputError(f"{folder}: not a bundle, there is no {MANIFEST}")
        self.where = str(folder)

    def names(self) -> set[str]:
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
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_file(follow_symlinks=False):
                    files.add(name)
                else:
                    raise IntegrityError(f"{name}: is neither a file nor a folder")
                if len(files) + len(folders) > MAX_FILES:
                    raise TooLargeError(f"bundle: more than {MAX_FILES} files")
        return files

    def read(self, name: str, limit: int) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(f"{self.where}/{name}", flags)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise IntegrityError(f"{name}: is not a regular file")
                return file.read(limit + 1)
        except OSError as error:
            raise FormatError(f"{name}: cannot be read: {error.strerror}") from error


class MemorySource:
    """A bundle whose files are in memory; it may sit in one folder of its own.

    Raises:
        InputError: There is no manifest.
        IntegrityError: A name that a bundle does not have.
    """

    def __init__(self, files: Mapping[str, bytes], where: str) -> None:
        top = top_folder(files.keys())
        self._files = {name.removeprefix(top): data for name, data in files.items()}
        self.where = where
        if MANIFEST not in self._files:
            raise InputError(f"{where}: not a bundle, there is no {MANIFEST}")
        for name in self._files:
            check_name(name)

    def names(self) -> set[str]:
        return set(self._files)

    def read(self, name: str, limit: int) -> bytes:
        return self._files[name][: limit + 1]


def sums(digests: Mapping[str, str]) -> bytes:
    """The bytes of SHA256SUMS: SHA-256 as hex by file name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


class BundleFiles:
    """The files of one bundle, each read once, with what is wrong with them."""

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self.problems: dict[str, EvidenceProblem] = {}
        self.total = 0
        self.present = source.names()
        seen: dict[str, bool] = {}
        for name in sorted(self.present):
            check_alone(name, seen)
        data = self._read(MANIFEST)
        manifest = load(data, MANIFEST, "run", "roots", "files")
        self.run = manifest.uuid("run")
        self.roots = manifest.raw.get("roots")
        self.listed: dict[str, tuple[bytes, int]] = {}
        for item in manifest.objects("files", "path", "sha256", "size"):
            name = read_path(item, "path")
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
            self.problem(
                name,
                f"SHA-256 is {digest.hex()} of {len(data)} bytes, "
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
        text = self.text("ledger.vkey") if self._has("ledger.vkey") else None
        return None if text is None else text.removesuffix("\n")

    def proof(self, name: str, path: str) -> RunProof | None:
        """A record's proof, where the bundle has one; one that does not decode is a problem."""
        data = self.find(name) if self._has(name) else None
        if data is None or name in self.problems:
            return None
        try:
            proof = RunProof.from_json(data)
            if proof.path != path:
                raise FormatError(f"is the proof of {proof.path}")
        except FormatError as error:
            self.problem(name, str(error))
            return None
        return proof

    def attachments(self) -> dict[str, bytes]:
        """The files for other people's tools; one that is missing or changed is a problem."""
        names = sorted(filter(is_attachment, self.listed))
        return {name: data for name in names if (data := self.find(name)) is not None}

    def check_rest(self) -> None:
        """Files nobody asked for: compare them with the manifest too."""
        for name in sorted(self.unread):
            if self.find(name) is not None and name != "README.txt":
                self.problem(name, "run.json does not know it")
        for name in sorted(self.present - set(self.listed) - {MANIFEST, SUMS}):
            self.problem(name, "is not listed in the manifest")

    def _check_sums(self, manifest: bytes) -> None:
        digests = {name: digest.hex() for name, (digest, _) in self.listed.items()}
        expected = sums(digests | {MANIFEST: hashlib.sha256(manifest).hexdigest()})
        if SUMS not in self.present:
            self.problem(SUMS, "is missing from the bundle")
        elif self._read(SUMS) != expected:
            self.problem(SUMS, f"does not fit {MANIFEST}: one of the two was changed")

    def _read(self, name: str) -> bytes:
        limit = limit_of(name)
        data = self.source.read(name, limit)
        self.total += len(data)
        if len(data) > limit or self.total > MAX_TOTAL_BYTES:
            raise TooLargeError(f"{name}: more than {min(limit, MAX_TOTAL_BYTES)} bytes")
        return data
