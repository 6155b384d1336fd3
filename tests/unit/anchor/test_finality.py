"""A run is finished once, by the last network that comes to it."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from provenance.anchor.receipts import finished_runs
from provenance.formats.record import Phase
from provenance.ledger.seal import append_root
from provenance.ports.values import AnchorState
from provenance.stores.sql import SqlStore
from tests.support.runs import POLICY

NOW = 1_760_000_000.0
POLICY2 = replace(POLICY, networks=("ethereum", "local"))


def test_the_last_network_finishes_the_run() -> None:
    store = SqlStore.open("sqlite://")
    runs = [UUID(int=i + 1) for i in range(3)]
    with store.transaction() as tx:
        for at, run in enumerate(runs):
            tx.add_run(run, bytes(32), NOW)
            append_root(tx, run, Phase.BEFORE, None, bytes([at]) * 32, True, POLICY2, NOW)
            append_root(tx, run, Phase.AFTER, None, bytes([9 - at]) * 32, True, POLICY2, NOW)

    def final(network: str, size: int) -> list[UUID]:
        with store.transaction() as tx:
            (row,) = [r for r in tx.anchors(network) if r.size == size]
            tx.save_anchor(replace(row, state=AnchorState.FINAL))
            return finished_runs(tx, [row.id], POLICY2.networks)

    assert final("local", 6) == []
    assert final("ethereum", 1) == []
    assert final("ethereum", 2) == [runs[0]]
    assert final("ethereum", 6) == [runs[1], runs[2]]
    with store.snapshot() as tx:
        assert finished_runs(tx, [], POLICY2.networks) == []
    store.close()
