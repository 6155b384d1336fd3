"""Check (6), of outcomes that the evidence brings: each is an entry of the ledger, of this run, and
of no time behind a block that holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from provenance.errors import FormatError, ProofError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.checkpoint import Head
from provenance.formats.merkle import verify_inclusion
from provenance.formats.note import VerifierKey
from provenance.formats.tlog.outcome import FILE, Outcome, ShownOutcomes
from provenance.verify.catalogue import LEDGER
from provenance.verify.checks.receipts import CLOCK_SLACK_S, CheckedReceipt
from provenance.verify.findings import Findings, counted

OUTCOMES: Final = (
    "That the later verifications came out as their outcomes say, or when: the ledger's owner says "
    "so, by the owner's clock and nodes. That there was none after the last that is here, and "
    "which are under a head that a chain has: see provenance log runs."
)


def check_outcomes(
    evidence: RunEvidence,
    key: VerifierKey | None,
    heads: Mapping[int, Head],
    receipts: Sequence[CheckedReceipt],
    now: float,
    findings: Findings,
) -> list[str]:
    """Check each outcome and say in a line how often the run was verified again; what nobody can
    check of it, none where the evidence has no outcome that holds."""
    data = evidence.attachments.get(FILE)
    if data is None:
        return []
    blocks = [(each.receipt.ledger.size, time) for each in receipts
              if (time := each.block_time) is not None]  # fmt: skip
    try:
        shown = ShownOutcomes.decode(data)
        head = heads.get(shown.size)
        if head is None:
            raise ProofError(f"its size is {shown.size}, expected that of a head that holds")
        roots = {entry.root: entry.index for entry in reversed(evidence.entries)}
        first, before = shown.outcomes[0].record.number, -1
        for number, item in enumerate(shown.outcomes, first):
            _check(evidence, key, item.record, number)
            if not roots.get(item.record.root, item.index) < item.index or item.index <= before:
                raise ProofError(f"entry {item.index}: comes before what it is about")
            before = item.index
            verify_inclusion(item.record.digest(), item.index, head.size, item.proof, head.root)
            behind = [item.record.at - time for size, time in blocks if item.index < size]
            if (late := max(behind, default=0.0)) > CLOCK_SLACK_S:
                problem = f"made {late / 3600:.1f} hours after the block that holds it"
                raise ProofError(f"outcome {number}: is said to be {problem}")
    except (FormatError, ProofError) as error:
        findings.fail(LEDGER, FILE, str(error), FILE)
        return []
    told = summary([item.record for item in shown.outcomes])
    if bare := sum(not any(item.index < size for size, _ in blocks) for item in shown.outcomes):
        last = "last" if bare == 1 else f"last {bare}"
        told += f"; no receipt here puts the {last} on a chain"
    if shown.outcomes[-1].record.at > now + CLOCK_SLACK_S:
        told += "; the last is of a time that is to come"
    findings.notice(LEDGER, FILE, told)
    return [OUTCOMES]


def summary(outcomes: Sequence[Outcome]) -> str:
    """``verified again 12 times, last 2026-12-01 09:00Z: always verified``."""
    last = outcomes[-1]
    times = f"verified again {counted(last.number, 'time')}, last {_day(last)}"
    changes = [
        f"{now.outcome} on {_day(now)}"
        for before, now in pairwise(outcomes)
        if now.outcome != before.outcome
    ]
    told = f"{outcomes[0].outcome}, then {', '.join(changes[-4:])}" if changes else ""
    seen = "" if outcomes[0].number == 1 else f" (of the newest {len(outcomes)})"
    return f"{times}: {told or f'always {last.outcome}'}{seen}"


def _day(outcome: Outcome) -> str:
    try:
        return datetime.fromtimestamp(outcome.at, UTC).strftime("%Y-%m-%d %H:%MZ")
    except (OverflowError, ValueError, OSError):
        return f"second {outcome.at}"


def _check(evidence: RunEvidence, key: VerifierKey | None, record: Outcome, number: int) -> None:
    if record.run != evidence.run:
        raise ProofError(f"outcome {record.number}: is of run {record.run}")
    if record.number != number:
        raise ProofError(f"outcome {record.number}: expected number {number}")
    if key is not None and record.ledger != key.vkey:
        raise ProofError(f"outcome {number}: is of the ledger {record.ledger}, not {key.vkey}")
    if record.root not in {entry.root for entry in evidence.entries}:
        raise ProofError(f"outcome {number}: root {record.root.hex()} is of no seal of the run")
