"""What a bundle carries beside its evidence.

Files for other people's tools are derived from it: each kind has a module with ``files(evidence,
ots)``, and :mod:`provenance.verify.checks.attachments` checks what the files of a bundle say.
Proofs about hidden numbers, the roll of all runs, outcomes of later verifications and approvals of
anchors are not: they go along where the evidence has them.
"""

from __future__ import annotations

import re
from typing import Final

from provenance.approvals.statement import APPROVALS
from provenance.bundle.attachments import opentimestamps, proofs, slsa, tlog
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.tlog import outcome
from provenance.proofs.timelock import lock as timelock
from provenance.roll import roll

MAX_BYTES: Final = 1024**2
"""Of one attachment."""
_NAMES: Final = re.compile(
    r"records/.+\.json\.ots|heads/[0-9]+\.root(?:\.ots)?|tlog/.+\.tlog-proof|statement/.+\.json"
    r"|proofs/[^/]+\.json|ledger/(?:runs|outcomes)\.json|approvals/[^/]+\.json|timelock\.json"
)
_DERIVED: Final = (opentimestamps, tlog, slsa)
GIVEN: Final = (proofs.FOLDER, roll.FILE, outcome.FILE, timelock.FILE, APPROVALS)
"""How the names begin of what is not derived."""


def is_attachment(name: str) -> bool:
    """Whether a bundle's file is one of these, by its name."""
    return _NAMES.fullmatch(name) is not None


def files(evidence: RunEvidence, ots: bool = False) -> dict[str, bytes]:
    """The attachments of a bundle, by file; with ``ots`` the OpenTimestamps proof of each record
    and the tlog-proof of each seal too, not only those of the heads and of the newest seal."""
    given = evidence.attachments.items()
    made = {name: data for name, data in given if name.startswith(GIVEN)}
    for kind in _DERIVED:
        made |= kind.files(evidence, ots)
    return made
