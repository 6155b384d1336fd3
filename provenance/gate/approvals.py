"""Approvals of a promotion: persons' signatures over what a run became.

docs/FORMAT.md, section 10.6. One statement names the run, its newest root, what is approved and
until when. The root is of everything that the run recorded: its weights too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final
from uuid import UUID

from provenance import files
from provenance.errors import InputError, ProvenanceError
from provenance.formats.approval import (
    PREDICATE_TYPE,
    has_expired,
    open_statement,
    term,
    until_of,
)
from provenance.formats.dsse import Envelope, Statement, Subject, in_one_form
from provenance.formats.record import Phase
from provenance.gate.rules import RuleResult, result
from provenance.settings.approval_files import count, read_approval
from provenance.settings.approvals import ApprovalRule, ApprovalSettings
from provenance.sigstore_root import TRUST_KEY
from provenance.verify.report import VerificationReport

PROMOTION: Final = "promotion"


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
        statement, fields = open_statement(data, file, PROMOTION, "run")
        root = statement.subjects[0].only_digest("mth_sha256", file)
        return in_one_form(cls(fields.uuid("run"), root, until_of(fields)), data, file)


def approve(
    report: VerificationReport,
    sign: Callable[[Envelope], Envelope],
    until: date | None,
    path: Path,
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
    approval = Approval(report.run, report.seals[-1].root, until)
    envelope = Envelope(approval.encode(), {})
    if path.exists():
        envelope = read_approval(path)
        there = Approval.decode(envelope.payload, str(path))
        if until is None:
            approval = Approval(approval.run, approval.root, there.until)
        if there != approval:
            found, wanted = (
                f"run {each.run}, root {each.root.hex()[:16]}, {term(each.until)}"
                for each in (there, approval)
            )
            raise InputError(
                f"{path}: found approval of {found}; expected {wanted}, or another file"
            )
    signed = sign(envelope)
    files.replace(path, signed.encode(), files.PUBLIC)
    return approval, len(signed.signatures)


def held(
    rule: ApprovalRule,
    report: VerificationReport,
    paths: Sequence[Path],
    now: float,
    sigstore_root: Path | None = None,
) -> RuleResult:
    """Whether enough of the named persons approved this run's newest root.

    Args:
        sigstore_root: File of the trusted root behind accounts; None takes sigstore's own.
    """
    wanted = rule.wanted
    rooted = ApprovalSettings(rule.at_least, rule.by, sigstore_root=sigstore_root)
    agreed, problems = set[str](), list[str]()
    for path in paths:
        try:
            envelope = read_approval(path)
            approval = Approval.decode(envelope.payload, str(path))
        except ProvenanceError as error:
            return result("approvals", False, str(error), wanted, error.exit_code)
        if problem := _problem(approval, report, now):
            problems.append(f"{path}: {problem}")
            continue
        signed = count(rooted, envelope, str(path), TRUST_KEY)
        agreed |= set(signed.names)
        problems += signed.problems
    enough, who = len(agreed) >= rule.at_least, ", ".join(sorted(agreed)) or "nobody"
    found = who if enough else "; ".join([who, *problems])
    return result("approvals", enough, f"approved by {found}", wanted)


def _problem(approval: Approval, report: VerificationReport, now: float) -> str | None:
    """Why an approval is not of this run, as it is, today."""
    if approval.run != report.run:
        return f"approves run {approval.run}"
    seal = report.seals[-1] if report.seals else None
    if seal is None or seal.label != Phase.AFTER or seal.root != approval.root:
        return f"approves root {approval.root.hex()[:16]}, which is not the run's newest"
    if has_expired(approval.until, now):
        return f"expired after {approval.until}"
    return None
