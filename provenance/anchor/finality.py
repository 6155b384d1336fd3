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
    reach = {name: _reach(tx, name, ()) for name in networks}
    everywhere = min(reach.values(), default=0)
    network = next((row.network for row in map(tx.anchor, newly_final) if row), None)
    if network is None:
        return []
    before = min(everywhere, _reach(tx, network, newly_final))
    return [
        entry.run
        for entry in tx.entries()
        if entry.phase is Phase.AFTER and entry.anchor and before <= entry.index < everywhere
    ]


def _reach(tx: LedgerTx, network: str, without: Collection[int]) -> int:
    """The size of the largest final head on a network."""
    rows = tx.anchors(network, [AnchorState.FINAL])
    return max((row.size for row in rows if row.id not in without), default=0)
