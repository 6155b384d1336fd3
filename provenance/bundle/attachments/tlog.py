"""C2SP tlog-proofs of a bundle.

``tlog/<seal>.tlog-proof`` proves one run root: entry of the ledger, path, signed head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provenance.errors import (
    FormatError,
    InputError,
    IntegrityError,
)
from provenance.evidence.run_evidence import Inclusion, RunEvidence, seal_label
from provenance.formats.note import VerifierKey
from provenance.formats.tlog.proof import TlogProof
from provenance.ports.values import LedgerEntry


def files(evidence: RunEvidence, ots: bool = False) -> dict[str, bytes]:
    """One for the newest seal, or for each, under the newest head that holds; none where none
    does."""
    key = evidence_key(evidence)
    notes = {head.size: head.note for head in evidence.heads}
    paths: dict[int, list[Inclusion]] = {}
    for item in evidence.inclusions:
        paths.setdefault(item.index, []).append(item)
    made: dict[str, bytes] = {}
    for entry in evidence.entries if ots else evidence.entries[-1:]:
        proof = _newest(entry, paths.get(entry.index, []), notes, key)
        if proof is not None:
            made[f"tlog/{seal_label(entry)}.tlog-proof"] = proof.encode().encode()
    return made


def evidence_key(evidence: RunEvidence) -> VerifierKey | None:
    """The evidence's own key; one that does not decode is a finding of check 5."""
    if evidence.vkey is None:
        return None
    try:
        return VerifierKey.from_vkey(evidence.vkey)
    except (FormatError, InputError):
        return None


def _newest(
    entry: LedgerEntry,
    paths: Sequence[Inclusion],
    notes: Mapping[int, str],
    key: VerifierKey | None,
) -> TlogProof | None:
    for item in sorted(paths, key=lambda item: -item.size):
        if item.size not in notes:
            continue
        try:
            proof = TlogProof(item.index, item.proof, notes[item.size])
            if proof.verify(entry.root, key).size == item.size:
                return proof
        except (FormatError, InputError, IntegrityError):
            continue
    return None
