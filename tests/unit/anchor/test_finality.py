"""A report is due once the run's *after* root is final on every network, until it is written."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from provenance.anchor.receipts import final_everywhere
from provenance.formats.record import Phase
from provenance.ledger.seal import append_root
from provenance.ports.values import AnchorState, Work
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
        """The runs whose reports are due since then; they are written."""
        with store.transaction() as tx:
            (row,) = [r for r in tx.anchors(network) if r.size == size]
            tx.save_anchor(replace(row, state=AnchorState.FINAL))
            upto, found = final_everywhere(tx, POLICY2.networks), list[UUID]()
            while (due := tx.due_work(Work.REPORT, NOW, 9.0, upto)) is not None:
                found.append(due.run)
                tx.drop_work(due.id)
            return sorted(found)

    assert final("local", 6) == []
    assert final("ethereum", 1) == []
    assert final("ethereum", 2) == [runs[0]]
    assert final("ethereum", 6) == [runs[1], runs[2]]
    with store.snapshot() as tx:
        assert final_everywhere(tx, ()) == 0
    store.close()
