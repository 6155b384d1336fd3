"""What is signed of a report: the run's newest root and the digest of each file.

docs/FORMAT.md, section 10.9: a DSSE envelope (DSSE v1.0.2) around an in-toto Statement v1. It
needs none of the packages that write the report.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import files
from provenance.errors import BadSignatureError, FormatError, ProvenanceError
from provenance.formats.dsse import Envelope, Statement, Subject, in_one_form, pae
from provenance.formats.fields import Fields
from provenance.verify.report import EXIT_CODES, VerificationReport

FILE: Final = "statement.dsse.json"
PREDICATE_TYPE: Final = "urn:ml-provenance:compliance:v1"
MAX_BYTES: Final = 64 * 1024
MAX_FILES: Final = 32
MAX_FILE_BYTES: Final = 64 * 1024**2
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_LABEL: Final = re.compile(r"[a-z0-9.-]{1,64}")


@dataclass(frozen=True, slots=True)
class ComplianceStatement:
    """Which files a report has, about which run.

    Attributes:
        root: The run's newest, 32 bytes; ``seal`` is its label.
        framework, version, table: Name, version and SHA-256 of the table.
        outcome: Of the run's verification when the report was written.
        files: SHA-256 as hex by name.
    """

    run: UUID
    root: bytes
    seal: str
    framework: str
    version: str
    table: bytes
    outcome: str
    files: Mapping[str, str]

    def encode(self) -> bytes:
        """The statement's bytes."""
        run = Subject("run", {"mth_sha256": self.root.hex()}, {"seal": self.seal})
        others = [Subject(name, {"sha256": d}) for name, d in sorted(self.files.items())]
        predicate = {
            "run": str(self.run),
            "framework": self.framework,
            "version": self.version,
            "table_sha256": self.table.hex(),
            "outcome": self.outcome,
        }
        return Statement((run, *others), PREDICATE_TYPE, dict(predicate)).encode()

    @classmethod
    def decode(cls, data: bytes, file: str) -> ComplianceStatement:
        """Read what `encode` writes, and nothing else; ``FormatError``."""
        statement = Statement.decode(data)
        keys = ("run", "framework", "version", "table_sha256", "outcome")
        fields = statement.fields(PREDICATE_TYPE, file).only(*keys)
        run, *others = statement.subjects
        seal = Fields.of(dict(run.annotations), file).only("seal")
        if not 0 < len(others) <= MAX_FILES:
            raise FormatError(f"{file}: found {len(others)} files, expected 1 to {MAX_FILES}")
        named: dict[str, str] = {}
        for subject in others:
            if not _NAME.fullmatch(subject.name) or subject.name == FILE:
                raise FormatError(
                    f"{file}: subject: found {subject.name[:60]!r}, expected the name of a file "
                    "of a report"
                )
            named[subject.name] = subject.only_digest("sha256", file).hex()
        made = cls(
            fields.uuid("run"),
            run.only_digest("mth_sha256", file),
            seal.matching("seal", _LABEL, "the label of a seal"),
            fields.matching("framework", _LABEL, "the name of a framework"),
            fields.matching("version", _LABEL, "the version of a table"),
            fields.hex("table_sha256", 32),
            fields.one_of("outcome", tuple(EXIT_CODES)),
            named,
        )
        return in_one_form(made, data, file)


@dataclass(frozen=True, slots=True)
class Checked:
    """What checking a report's folder found: keys as hex that signed, and what does not hold."""

    statement: ComplianceStatement
    signers: tuple[str, ...]
    problems: tuple[str, ...]
    not_checked: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 all holds; 1 something does not; 3 it rests on no key that was named."""
        return 1 if self.problems else 3 if self.not_checked else 0


def sign(statement: ComplianceStatement, key: Ed25519PrivateKey | None) -> bytes:
    """The file: an envelope with the key's signature, or with none."""
    payload = statement.encode()
    if key is None:
        return Envelope(payload, {}).encode()
    public = key.public_key().public_bytes_raw().hex()
    return Envelope(payload, {public: key.sign(pae(payload))}).encode()


def read_statement(folder: Path) -> tuple[Envelope, ComplianceStatement]:
    """The envelope in a report's folder, and what it says; no signature is checked.

    Raises:
        InputError, FormatError: There is none, or it is another file.
    """
    path = folder / FILE
    data = _read(path, MAX_BYTES)
    envelope = Envelope.decode(data, str(path))
    if envelope.encode() != data:
        raise FormatError(f"{path}: is not the one form of such an envelope (RFC 8785)")
    if not all(isinstance(made, bytes) for made in envelope.signatures.values()):
        raise FormatError(f"{path}: signatures: found an account's, expected those of keys")
    return envelope, ComplianceStatement.decode(envelope.payload, str(path))


def check(
    folder: Path, signer: bytes | None = None, report: VerificationReport | None = None
) -> Checked:
    """Whether a report's files are as they were signed.

    Args:
        signer: The Ed25519 key, 32 bytes, that must have signed.
        report: What verifying the run found that this is to be about.

    Raises:
        InputError, FormatError: There is no such statement.
    """
    envelope, statement = read_statement(folder)
    path, problems, signers = folder / FILE, list[str](), list[str]()
    for key in envelope.signatures:
        try:
            envelope.check(key, str(path))
            signers.append(key)
        except BadSignatureError as error:
            problems.append(str(error))
    if signer is not None and signer.hex() not in signers:
        found = ", ".join(key[:16] for key in signers) or "no signature"
        problems.append(f"{path}: found {found}, expected a signature of {signer.hex()[:16]}")
    problems += _file_problems(folder, statement)
    not_checked = []
    if report is None:
        not_checked.append("that the run has this root: name the run or its bundle")
    else:
        problems += _run_problems(path, statement, report)
    if signer is None:
        not_checked.append(
            "whose key signed: name the one that you know (--signer)"
            if signers
            else "who wrote it: it is not signed"
        )
    return Checked(statement, tuple(signers), tuple(problems), tuple(not_checked))


def _file_problems(folder: Path, statement: ComplianceStatement) -> list[str]:
    problems = []
    for name, digest in sorted(statement.files.items()):
        try:
            found = hashlib.sha256(_read(folder / name, MAX_FILE_BYTES)).hexdigest()
        except ProvenanceError as error:
            problems.append(str(error))
            continue
        if found != digest:
            problems.append(
                f"{folder / name}: found SHA-256 {found[:16]}, expected {digest[:16]}, "
                "as the statement says"
            )
    with files.errors_of(folder, "read"):
        others = sorted({path.name for path in folder.iterdir()} - {FILE, *statement.files})
    problems += [f"{folder / name}: is not in the statement, expected no other" for name in others]
    return problems


def _run_problems(
    path: Path, statement: ComplianceStatement, report: VerificationReport
) -> list[str]:
    if statement.run != report.run:
        return [f"{path}: found run {statement.run}, expected {report.run}"]
    roots = {seal.label: seal.root for seal in report.seals}
    problems = []
    if roots.get(statement.seal) != statement.root:
        expected = roots.get(statement.seal, b"").hex()[:16] or "no such seal"
        found = f"root {statement.root.hex()[:16]} at {statement.seal}"
        problems.append(f"{path}: found {found}, expected {expected}")
    if report.outcome == "failed":
        first = report.findings[0]
        problems.append(f"run {report.run}: does not verify: {first.subject}: {first.problem}")
    return problems


def _read(path: Path, limit: int) -> bytes:
    """A regular file, no link. ``InputError``: it cannot be read; ``FormatError``: it is none, or
    too long."""
    with files.errors_of(path, "read"):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise FormatError(f"{path}: is not a regular file, expected a file of a report")
        data = files.read_regular(path, limit + 1)
    if len(data) > limit:
        raise FormatError(f"{path}: more than {limit} bytes, expected a file of a report")
    return data
