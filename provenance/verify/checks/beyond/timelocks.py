"""Check (11), of a time lock that a bundle brings: of this run, and of records withheld here."""

from __future__ import annotations

from typing import Final

from provenance.errors import FormatError, ProofError
from provenance.evidence.run_evidence import RunEvidence
from provenance.proofs.timelock.lock import FILE, TimeLock
from provenance.verify.catalogue import PORTABLE
from provenance.verify.findings import Findings, counted

LOCKED: Final = (
    "The time lock's block, approvers and how many of them open it, and that it holds these "
    "records: that is the word of who made the bundle. An approver's key shows the block, opening "
    "it the rest. That it stays shut until then: that rests on its approvers alone."
)


def check_timelock(evidence: RunEvidence, findings: Findings) -> list[str]:
    """Check the lock and say in a line when it opens; what nobody can check of it."""
    data = evidence.attachments.get(FILE)
    if data is None:
        return []
    try:
        lock = TimeLock.decode(data)
        if lock.run != evidence.run:
            raise ProofError(f"is of run {lock.run}")
        if not evidence.entries or lock.root != evidence.entries[-1].root:
            raise ProofError(f"is of the run root {lock.root.hex()}, not the newest seal's")
        places = {record.digest for record in evidence.records if record.withheld}
        if foreign := next((each for each in lock.records if each not in places), None):
            raise ProofError(f"record {foreign.hex()} is none that is withheld here")
    except (FormatError, ProofError) as error:
        findings.fail(PORTABLE, FILE, str(error), FILE)
        return []
    names = ", ".join(each.name for each in lock.approvers)
    chain = ", ".join(map(str, lock.after.chain.values()))
    after = f"{lock.after.network} ({chain}) block {lock.after.height}"
    told = f"{counted(len(lock.records), 'record')} locked until {after}"
    told = f"{told}; {lock.threshold} of these open it: {names}"
    findings.notice(PORTABLE, FILE, f"{told}; as who made the bundle says")
    return [LOCKED]
