"""What a bundle carries for other people's tools, derived from the evidence; and the roll of all
runs (:mod:`provenance.roll.roll`), which is not: where the evidence has it, it goes along.

Each kind has a module whose ``files(evidence, ots)`` derives its files;
:mod:`provenance.verify.checks.attachments` checks what the files of a bundle say.
"""

from __future__ import annotations

import re
from typing import Final

from provenance.bundle.attachments import opentimestamps, slsa, tlog
from provenance.evidence.run_evidence import RunEvidence
from provenance.roll import roll

MAX_BYTES: Final = 1024**2
"""Of one attachment."""
_NAMES: Final = re.compile(
    r"records/.+\.json\.ots|heads/[0-9]+\.root(?:\.ots)?|tlog/.+\.tlog-proof|statement/.+\.json"
    r"|ledger/runs\.json"
)
_KINDS: Final = (opentimestamps, tlog, slsa)


def is_attachment(name: str) -> bool:
    """Whether a bundle's file is one of these, by its name."""
    return _NAMES.fullmatch(name) is not None


def files(evidence: RunEvidence, ots: bool = False) -> dict[str, bytes]:
    """The attachments of a bundle, by file; with ``ots`` the OpenTimestamps proof of each record
    and the tlog-proof of each seal too, not only those of the heads and of the newest seal."""
    made = {name: data for name, data in evidence.attachments.items() if name == roll.FILE}
    for kind in _KINDS:
        made |= kind.files(evidence, ots)
    return made
