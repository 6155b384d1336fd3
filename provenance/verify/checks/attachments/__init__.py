"""Check (11): the files that a bundle brings for other people's tools.

A file is never compared with a new derivation: a later release may derive other bytes, and
old bundles verify forever.
"""

from __future__ import annotations

from provenance.evidence.run_evidence import RunEvidence
from provenance.verify.catalogue import PORTABLE
from provenance.verify.checks.attachments import opentimestamps, slsa, tlog
from provenance.verify.findings import Findings


def check_attachments(evidence: RunEvidence, findings: Findings) -> None:
    """Check the OpenTimestamps proofs, tlog-proofs and statement that the evidence brings."""
    if not evidence.attachments:
        findings.skip(PORTABLE, "the evidence brings none")
    findings.count(PORTABLE, f"{len(evidence.attachments)} files")
    opentimestamps.check(evidence, findings)
    tlog.check(evidence, findings)
    slsa.check(evidence, findings)
