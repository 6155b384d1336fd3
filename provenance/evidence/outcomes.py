"""The outcomes of a run's later verifications, as a bundle shows them."""

from __future__ import annotations

from collections.abc import Sequence

from provenance.formats.merkle import KeptTree
from provenance.formats.tlog.outcome import (
    FILE,
    MAX_SHOWN,
    Outcome,
    ShownOutcome,
    ShownOutcomes,
)
from provenance.ports.values import OutcomeRow


def outcome_file(rows: Sequence[OutcomeRow], tree: KeptTree, size: int) -> dict[str, bytes]:
    """The newest outcomes under the head of ``size``, as the attachment of a bundle; none where
    there is none. Raises FormatError: a stored record is none."""
    rows = [row for row in rows if row.index < size][-MAX_SHOWN:]
    if not rows:
        return {}
    proofs = tree.inclusion_proofs((row.index, size) for row in rows)
    shown = [
        ShownOutcome(row.index, tuple(proof), Outcome.decode(row.document, f"entry {row.index}"))
        for row, proof in zip(rows, proofs, strict=True)
    ]
    return {FILE: ShownOutcomes(size, shown).encode()}
