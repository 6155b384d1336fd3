"""Which runs have come to their end on every network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from provenance.formats.record import Phase
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorState


def finished_runs(
    tx: LedgerTx, newly_final: Collection[int], networks: Sequence[str]
) -> list[UUID]:
    """Runs that these anchors, final since now, have finished.

    A run is finished when its *after* root lies under a final head on each of ``networks``.

    Args:
        newly_final: Ids of anchors of one network that have just become final.
    """
    final = (AnchorState.FINAL,)
    everywhere = min((tx.reach(name, final) for name in networks), default=0)
    network = next((row.network for row in map(tx.anchor, newly_final) if row), None)
    if network is None:
        return []
    before = tx.reach(network, final, without=newly_final)
    return [
        entry.run
        for entry in tx.entries(first=before, end=everywhere)
        if entry.phase is Phase.AFTER and entry.anchor
    ]
