"""C2SP tlog-proofs of a bundle.

``tlog/<seal>.tlog-proof`` proves one run root: entry of the ledger, path, signed head.
"""

from __future__ import annotations

from contextlib import suppress

from provenance.errors import FormatError, InputError, IntegrityError
from provenance.evidence.run_evidence import Inclusion, RunEvidence, seal_label
from provenance.formats.note import VerifierKey
from provenance.formats.tlog.proof import TlogProof


def files(evidence: RunEvidence, ots: bool = False) -> dict[str, bytes]:
    """One for the newest seal, or for each, under the newest head that holds; none where none
    does."""
    key = evidence_key(evidence)
    notes = {head.size: head.note for head in evidence.heads}
    paths: dict[int, list[Inclusion]] = {}
    for item in sorted(evidence.inclusions, key=lambda item: -item.size):
        if item.size in notes:
            paths.setdefault(item.index, []).append(item)
    made: dict[str, bytes] = {}
    for entry in evidence.entries if ots else evidence.entries[-1:]:
        for item in paths.get(entry.index, []):
            with suppress(FormatError, InputError, IntegrityError):
                proof = TlogProof(item.index, item.proof, notes[item.size])
                if proof.verify(entry.root, key).size == item.size:
                    made[f"tlog/{seal_label(entry)}.tlog-proof"] = proof.encode().encode()
                    break
    return made


def evidence_key(evidence: RunEvidence) -> VerifierKey | None:
    """The evidence's own key; one that does not decode is a finding of check 5."""
    with suppress(FormatError, InputError):
        return None if evidence.vkey is None else VerifierKey.from_vkey(evidence.vkey)
    return None
