"""Check (6), of a roll that a bundle brings: every entry of the ledger, each of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from provenance.errors import FormatError, ProofError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.checkpoint import Head
from provenance.formats.tlog import outcome
from provenance.roll.roll import FILE, Roll
from provenance.roll.statistics import RunsBefore, runs_before
from provenance.verify.catalogue import LEDGER
from provenance.verify.findings import Findings

OTHERS: Final = (
    "What the roll says of other runs, but that they are in the ledger: how they ended, their "
    "seeds and results are the database's word. Ask for their bundles."
)


def check_roll(
    evidence: RunEvidence, heads: Mapping[int, Head], findings: Findings
) -> RunsBefore | None:
    """How many runs began before this one, where the evidence has a roll that holds."""
    data = evidence.attachments.get(FILE)
    if data is None:
        return None
    try:
        roll = Roll.decode(data)
        head = heads.get(roll.size)
        if head is None:
            raise ProofError(f"its size is {roll.size}, expected that of a head that holds")
        roll.check(head.root)
        stated = next((item.entries for item in roll.runs if item.run == evidence.run), ())
        own = tuple(entry.index for entry in evidence.entries if entry.index < roll.size)
        if stated != own:
            raise ProofError(f"has entries {list(stated)} of this run, run.json has {list(own)}")
        again = next((item.outcomes for item in roll.runs if item.run == evidence.run), ())
        if lacking := sorted(set(_outcomes(evidence, roll.size)) - set(again)):
            raise ProofError(f"lacks entry {lacking[0]}, an outcome of this run")
    except (FormatError, ProofError) as error:
        findings.fail(LEDGER, FILE, str(error), FILE)
        return None
    return runs_before(roll, evidence.run)


def _outcomes(evidence: RunEvidence, size: int) -> list[int]:
    """Indexes of the outcomes that the evidence brings, below a size."""
    data = evidence.attachments.get(outcome.FILE)
    shown = [] if data is None else outcome.ShownOutcomes.decode(data).outcomes
    return [item.index for item in shown if item.index < size]
