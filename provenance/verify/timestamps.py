"""OpenTimestamps proofs of a bundle."""

from __future__ import annotations

from collections.abc import Mapping

from provenance.core.run_proofs import RunProof
from provenance.verify.evidence import RunEvidence
from provenance.verify.notes import Notes


def files(evidence: RunEvidence, proofs: Mapping[str, RunProof]) -> dict[str, bytes]:
    """Derive the files."""
    return {}


def check(evidence: RunEvidence, notes: Notes) -> None:
    """Check the files that a bundle brings."""
