"""Where the checks write down what they find."""

from __future__ import annotations

from dataclasses import dataclass, field

from provenance.evidence.run_evidence import RecordFile, RunEvidence
from provenance.verify.catalogue import CHECKS, Status
from provenance.verify.identity import Standing
from provenance.verify.report import CheckResult, Finding


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """``1 record``, ``2 records``."""
    return f"{number} {noun if number == 1 else nouns or f'{noun}s'}"


@dataclass(slots=True)
class Findings:
    """What does not hold, what a reader should see, and each check's status so far.

    Attributes:
        asked: Labels of the seals that asked for an anchor.
        without_receipt: Those of them that no receipt which holds is of.
        cosigned: By size of a head that covers the run, the pinned witnesses whose
            cosignatures of it verify.
        standing: Who signed the run; None if nobody did.
        item_sets: Each item set that a record of data states, in words.
        unattested: Processes without evidence of their host, at start and end, that holds and
            whose key somebody pinned.
    """

    evidence: RunEvidence
    problems: list[Finding] = field(default_factory=list)
    notices: list[Finding] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    without_receipt: list[str] = field(default_factory=list)
    cosigned: dict[int, set[str]] = field(default_factory=dict)
    standing: Standing | None = None
    item_sets: list[str] = field(default_factory=list)
    unattested: list[str] = field(default_factory=list)
    _failed: set[tuple[int, str | None]] = field(default_factory=set)
    _details: dict[int, str] = field(default_factory=dict)
    _open: dict[int, dict[str, None]] = field(default_factory=dict)
    _skipped: dict[int, str] = field(default_factory=dict)

    def fail(
        self, check: int, subject: str, problem: str, file: str = "", path: str | None = None
    ) -> None:
        """Something does not hold; ``file`` counts where the evidence lies in files. The problem
        may begin with the subject, as decoders' errors with their file: it is said once."""
        where = self.evidence.file(file) if file else None
        problem = problem.removeprefix(f"{subject}: ")
        self.problems.append(Finding(check, subject, problem, where, path))
        self._failed |= {(check, subject), (check, None)}

    def fail_record(self, check: int, record: RecordFile, problem: str) -> None:
        """A record does not hold."""
        self.fail(check, record.path, problem, record.file, record.path)

    def notice(self, check: int, subject: str, problem: str, path: str | None = None) -> None:
        """Something a reader should see that fails nothing."""
        self.notices.append(Finding(check, subject, problem, None, path))

    def unchecked(self, check: int, why: str) -> None:
        """Asked for, and could not be done."""
        self._open.setdefault(check, {})[why] = None

    def skip(self, check: int, why: str) -> None:
        """Not asked for, or nothing to check."""
        self._skipped[check] = why

    def count(self, check: int, detail: str) -> None:
        """What was looked at."""
        self._details[check] = detail

    def failed(self, check: int, subject: str | None = None) -> bool:
        """Whether the check failed, on a subject or at all."""
        return (check, subject) in self._failed

    def results(self) -> tuple[CheckResult, ...]:
        """Each check's status: a failure before a gap before a skip."""
        return tuple(CheckResult(check, *self._status(check.number)) for check in CHECKS)

    def _status(self, check: int) -> tuple[Status, str]:
        count = sum(finding.check == check for finding in self.problems)
        if count:
            return Status.FAILED, counted(count, "problem")
        if check in self._open:
            return Status.UNCHECKED, "; ".join(self._open[check])
        if check in self._skipped:
            return Status.SKIPPED, self._skipped[check]
        return Status.PASSED, self._details.get(check, "")
