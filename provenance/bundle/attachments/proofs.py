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

from provenance.evidence.run_evidence import RunEvidence
from provenance.files import errors_of, read_as, read_regular
from provenance.formats.fields import Fields

FOLDER: Final = "proofs/"
_VERSION: Final = 1
_MAX_BYTES: Final = 64 * 1024


def with_proofs(evidence: RunEvidence, paths: Iterable[Path]) -> RunEvidence:
    """The evidence with the proofs of these files too. Raises InputError: one cannot be read, or
    is no such proof; whether it holds is for the verifier."""
    added: dict[str, bytes] = {}
    for path in paths:
        with errors_of(path, "read"):
            data = read_regular(path, _MAX_BYTES + 1)
        with read_as(path, "a proof of 'provenance prove'"):
            fields = Fields.parse_canonical(data, str(path), _VERSION, limit=_MAX_BYTES)
            fields.only("v", "statement", "proof")
        name = re.sub("[^A-Za-z0-9_-]+", "-", path.stem)[:60]
        added[f"{FOLDER}{name}-{hashlib.sha256(data).hexdigest()[:8]}.json"] = data
    return replace(evidence, attachments={**evidence.attachments, **added}) if added else evidence
