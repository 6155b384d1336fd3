"""Check (11): C2SP tlog-proofs against the run's seals and the heads of the ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from provenance.bundle.attachments.tlog import evidence_key
from provenance.errors import FormatError, InputError, IntegrityError, ProofError
from provenance.evidence.run_evidence import RunEvidence, seal_label
from provenance.formats.checkpoint import SignedHead
from provenance.formats.note import VerifierKey
from provenance.formats.tlog.proof import TlogProof
from provenance.ports.values import LedgerEntry
from provenance.verify.catalogue import PORTABLE
from provenance.verify.findings import Findings

_NAME: Final = re.compile(r"tlog/(.+)\.tlog-proof")


def check(evidence: RunEvidence, findings: Findings) -> None:
    """Each is of its seal's run root, in the ledger that signed the heads."""
    entries = {seal_label(entry): entry for entry in evidence.entries}
    key = evidence_key(evidence)
    known = evidence.signed_heads()
    for file, data in evidence.attachments.items():
        match = _NAME.fullmatch(file)
        if match is None:
            continue
        try:
            entry = entries.get(match[1])
            if entry is None:
                raise ProofError(f"the run has no seal {match[1]}")
            _check(data, entry, key, known)
        except (FormatError, InputError, IntegrityError) as error:
            findings.fail(PORTABLE, file, str(error), file)


def _check(
    data: bytes, entry: LedgerEntry, key: VerifierKey | None, known: Mapping[int, SignedHead]
) -> None:
    """Raises ProofError, BadSignatureError or FormatError where the file does not hold."""
    proof = TlogProof.decode(data)
    if proof.index != entry.index:
        raise ProofError(
            f"is of ledger entry {proof.index}, {seal_label(entry)} is entry {entry.index}"
        )
    head = proof.verify(entry.root, key)
    same = known.get(head.size)
    if same is not None and (same.head.origin, same.head.root) != (head.origin, head.root):
        raise ProofError(
            f"its head has root {head.root.hex()} at size {head.size}, "
            f"the ledger's has {same.head.root.hex()}"
        )
    if key is None and same is None:
        raise ProofError(f"its head at size {head.size} is not among the heads, and no key is here")
