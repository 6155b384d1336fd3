"""What a bundle carries for other people's tools, derived from the evidence.

Each kind has a module whose ``files(evidence, proofs)`` derives its files;
:mod:`provenance.verify.checks.attachments` checks what the files of a bundle say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from provenance.bundle.attachments import opentimestamps, slsa, tlog
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.run_tree.proof import RunProof

MAX_BYTES: Final = 1024**2
"""Of one attachment."""
_NAMES: Final = re.compile(
    r"records/.+\.json\.ots|heads/[0-9]+\.root(?:\.ots)?|tlog/.+\.tlog-proof|statement/.+\.json"
)
_KINDS: Final = (opentimestamps, tlog, slsa)


def is_attachment(name: str) -> bool:
    """Whether a bundle's file is one of these, by its name."""
    return _NAMES.fullmatch(name) is not None


def files(evidence: RunEvidence, proofs: Mapping[str, RunProof]) -> dict[str, bytes]:
    """All attachments of a bundle, by file."""
    made: dict[str, bytes] = {}
    for kind in _KINDS:
        made |= kind.files(evidence, proofs)
    return made
