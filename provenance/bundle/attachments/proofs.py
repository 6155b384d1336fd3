"""Proofs about a run's hidden numbers: ``proofs/<name>.json`` of a bundle.

Nothing derives them: whoever has the openings makes them (:mod:`provenance.zk`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from provenance import files
from provenance.errors import InputError
from provenance.evidence.run_evidence import RunEvidence

FOLDER: Final = "proofs/"
_MAX_BYTES: Final = 1024**2


def with_proofs(evidence: RunEvidence, paths: Iterable[Path]) -> RunEvidence:
    """The evidence with the proofs of these files too. Raises InputError: one cannot be read."""
    added: dict[str, bytes] = {}
    for path in paths:
        with files.errors_of(path, "read"):
            data = files.read_regular(path, _MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InputError(f"{path}: found more than {_MAX_BYTES} bytes, expected a proof")
        name = re.sub("[^A-Za-z0-9_-]+", "-", path.stem)[:60]
        added[f"{FOLDER}{name}-{hashlib.sha256(data).hexdigest()[:8]}.json"] = data
    return replace(evidence, attachments={**evidence.attachments, **added}) if added else evidence
