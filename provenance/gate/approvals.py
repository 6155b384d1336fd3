"""Approvals: persons' signatures over what a run became, and the rule that counts them.

docs/FORMAT.md, section 10.6. One statement names the run, its newest root, what is approved and
until when; each person's Ed25519 key signs the same bytes, so that whoever adds a signature sees
what the others signed. The root is of everything that the run recorded: its weights too.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import files
from provenance.errors import BadSignatureError, FormatError, InputError, ProvenanceError
from provenance.formats.dsse import Envelope, Statement, Subject, pae
from provenance.formats.ed25519 import verify_signature
from provenance.formats.fields import Fields
from provenance.formats.record import Phase
from provenance.gate.policy import ApprovalRule
from provenance.gate.rules import RuleResult, result
from provenance.verify.report import VerificationReport

PREDICATE_TYPE: Final = "urn:ml-provenance:approval:v1"
PROMOTION: Final = "promotion"
DAY: Final = "a day such as 2027-01-31"
MAX_BYTES: Final = 1024**2


@dataclass(frozen=True, slots=True)
class Approval:
    """What is approved: that a run with this newest root is promoted, to the end of the day
    ``until`` (UTC); None: for ever."""

    run: UUID
    root: bytes
    until: date | None = None

    def encode(self) -> bytes:
        """The statement's bytes."""
        subject = Subject("run", {"mth_sha256": self.root.hex()}, {"seal": Phase.AFTER.value})
        until = None if self.until is None else self.until.isoformat()
        predicate = {"for": PROMOTION, "run": str(self.run), "until": until}
        return Statement((subject,), PREDICATE_TYPE, predicate).encode()

    @classmethod
    def decode(cls, data: bytes, file: str) -> Approval:
        """Read what `encode` writes, and nothing else; ``FormatError``."""
        statement = Statement.decode(data)
        if statement.predicate_type != PREDICATE_TYPE:
            found = statement.predicate_type[:60]
            raise FormatError(f"{file}: found a statement {found!r}, expected {PREDICATE_TYPE}")
        fields = Fields.of(dict(statement.predicate), file).only("for", "run", "until")
        fields.one_of("for", (PROMOTION,))
        digest = Fields.of(dict(statement.subjects[0].digest), file).only("mth_sha256")
        until = day(fields.maybe("until", fields.text) or "")
        made = cls(fields.uuid("run"), digest.hex("mth_sha256", 32), until)
        if made.encode() != data:
            raise FormatError(f"{file}: is not the one form of such a statement")
        return made


def day(text: str) -> date | None:
    """Of ``2027-01-31``; None where it is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def read(path: Path) -> Envelope:
    """An approval's file; ``InputError``, ``FormatError``."""
    with files.errors_of(path, "read"):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file, expected an approval")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: more than {MAX_BYTES} bytes, expected an approval")
    return Envelope.decode(data, str(path))


def approve(
    report: VerificationReport, key: Ed25519PrivateKey, until: date | None, path: Path
) -> tuple[Approval, int]:
    """Sign that a run may be promoted, into ``path``: beside the signatures that are there.

    Returns:
        What was signed, and how many signatures it has now. Where there were some and ``until``
        is None, it is theirs.

    Raises:
        InputError: The run has findings or no root after training, or the file approves something
            else.
    """
    if report.findings or not report.seals or report.seals[-1].label != Phase.AFTER:
        first = report.findings[0].problem if report.findings else "no seal after training"
        raise InputError(f"run {report.run}: {first}; expected a run that ended and verifies")
    approval, signatures = Approval(report.run, report.seals[-1].root, until), dict[str, bytes]()
    if path.exists():
        envelope = read(path)
        there, signatures = Approval.decode(envelope.payload, str(path)), dict(envelope.signatures)
        if until is None:
            approval = Approval(approval.run, approval.root, there.until)
        if there != approval:
            found = f"approval of run {there.run}, root {there.root.hex()[:16]}, {_term(there)}"
            expected = f"run {approval.run}, root {approval.root.hex()[:16]}, {_term(approval)}"
            raise InputError(f"{path}: found {found}; expected {expected}, or another file")
    payload = approval.encode()
    signatures[key.public_key().public_bytes_raw().hex()] = key.sign(pae(payload))
    files.replace(path, Envelope(payload, signatures).encode(), files.PUBLIC)
    return approval, len(signatures)


def _term(approval: Approval) -> str:
    return f"until {approval.until}" if approval.until else "for ever"


def held(
    rule: ApprovalRule, report: VerificationReport, paths: Sequence[Path], now: float
) -> RuleResult:
    """Whether enough of the named persons approved this run's newest root."""
    names = {key: name for name, key in rule.by.items()}
    expected = f"{rule.at_least} of {', '.join(sorted(rule.by))}"
    agreed, problems = set[str](), list[str]()
    for path in paths:
        try:
            envelope = read(path)
            approval = Approval.decode(envelope.payload, str(path))
        except ProvenanceError as error:
            return result("approvals", False, str(error), expected, error.exit_code)
        if problem := _problem(approval, report, now):
            problems.append(f"{path}: {problem}")
            continue
        for key in envelope.signatures.keys() & names.keys():
            try:
                verify_signature(
                    bytes.fromhex(key), envelope.signatures[key], pae(envelope.payload), str(path)
                )
                agreed.add(names[key])
            except BadSignatureError as error:
                problems.append(f"{error}, as {names[key]}")
    enough, who = len(agreed) >= rule.at_least, ", ".join(sorted(agreed)) or "nobody"
    found = who if enough else "; ".join([who, *problems])
    return result("approvals", enough, f"approved by {found}", expected)


def _problem(approval: Approval, report: VerificationReport, now: float) -> str | None:
    """Why an approval is not of this run, as it is, today."""
    if approval.run != report.run:
        return f"approves run {approval.run}"
    seal = report.seals[-1] if report.seals else None
    if seal is None or seal.label != Phase.AFTER or seal.root != approval.root:
        return f"approves root {approval.root.hex()[:16]}, which is not the run's newest"
    if approval.until is not None and datetime.fromtimestamp(now, UTC).date() > approval.until:
        return f"expired after {approval.until}"
    return None
