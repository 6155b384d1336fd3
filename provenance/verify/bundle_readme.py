"""The README.txt of a bundle: how to check it by hand."""

from __future__ import annotations

from collections.abc import Mapping

from provenance.core.run_proofs import RunProof
from provenance.verify.by_hand import hand_path
from provenance.verify.evidence import RunEvidence, seal_label

_TEXT = """\
Evidence of training run {run}
{rule}

What is here
  records/    what the run recorded, one JSON file each; the path is its place in the run tree
  proofs/     for each record its way up to the run root
  receipts/   for each seal and network: run root -> ledger -> what the network carries
  heads/      signed heads of the ledger (C2SP tlog-checkpoint); ledger.vkey is the key
  run.json    the seals, the ledger proofs, and everything that was refused or doubled
  manifest.json, SHA256SUMS    the SHA-256 of every file

Run roots
{roots}

Check it with the program
  provenance verify .              asks the networks of your configuration
  provenance verify . --offline    asks nobody

Check it without
  1. Is every file as it was written?          sha256sum -c SHA256SUMS
  2. Is a record under the run root?           {example}
  3. Is the run root in the ledger?            receipts/*.json: root, ledger.index, ledger.proof
                                               (RFC 9162 section 2.1.3.2)
  4. Is the head signed?                       heads/*.note with ledger.vkey (C2SP signed-note)
  5. Is the ledger root on the network?        receipts/*.json: anchor.transaction_id carries
                                               anchor.payload = "MLP1" and the ledger root

SHA256SUMS proves only that files match each other. What ties them to a time is step 5, with a
node that you trust; what ties them to an owner is step 4, with a key that you got elsewhere.
"""


def readme(evidence: RunEvidence, proofs: Mapping[str, RunProof]) -> str:
    """The text, with the path of one record worked out as commands."""
    title = f"Evidence of training run {evidence.run}"
    roots = [f"  {seal_label(entry):<16} {entry.root.hex()}" for entry in evidence.entries]
    shown = next((path for path in proofs if "/metrics/" in path), next(iter(proofs), None))
    text = _TEXT.format(
        run=evidence.run,
        rule="=" * len(title),
        roots="\n".join(roots) or "  none yet",
        example="run the commands below in this folder" if shown else "nothing is sealed yet",
    )
    if shown is not None:
        text += f"\nOne record by hand\n\n{hand_path(proofs[shown], f'records/{shown}.json')}"
    return text
