"""Check (14): zero-knowledge proofs about numbers that records commit to."""

from __future__ import annotations

from provenance.bundle.attachments.proofs import FOLDER
from provenance.errors import FormatError, MissingExtraError, ProofError, UnavailableError
from provenance.evidence.run_evidence import RunEvidence
from provenance.verify.catalogue import PROVED
from provenance.verify.findings import Findings, counted


def check_proofs(evidence: RunEvidence, findings: Findings) -> None:
    """Check each proof that the evidence brings, and say in a line what it proves."""
    brought = {name: data for name, data in evidence.attachments.items() if name.startswith(FOLDER)}
    if not brought:
        findings.skip(PROVED, "the evidence brings none")
        return
    try:
        from provenance.zk.check import check_proof  # its library is an extra's
    except MissingExtraError as error:
        findings.unchecked(PROVED, str(error))
        return
    findings.count(PROVED, counted(len(brought), "proof"))
    for name, data in sorted(brought.items()):
        try:
            path, line = check_proof(evidence, data)
        except UnavailableError as error:
            findings.unchecked(PROVED, f"{name}: {error}")
        except (FormatError, ProofError) as error:
            findings.fail(PROVED, name, str(error), name)
        else:
            findings.notice(PROVED, name, line, path)
