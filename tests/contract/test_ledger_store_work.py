"""LedgerStore: work that is due until it is done."""

from __future__ import annotations

from dataclasses import replace

from provenance.ports.store import LedgerTx
from provenance.ports.values import Work
from tests.support.ledger_values import OTHER, RUN


def test_work_is_due_in_order_until_it_is_dropped(run_tx: LedgerTx) -> None:
    run_tx.add_work_of_sealed(Work.VERIFICATION, 10.0)
    assert run_tx.due_work(Work.VERIFICATION, 1e9, 1e9) is None, "no run is sealed"
    for run, at in ((RUN, 5.0), (OTHER, 3.0)):
        run_tx.seal_run(run, at, None)
    for _ in range(2):
        run_tx.add_work_of_sealed(Work.VERIFICATION, 10.0)
    assert run_tx.due_work(Work.VERIFICATION, 12.9, 1e9) is None
    first = run_tx.due_work(Work.VERIFICATION, 20.0, 1e9)
    assert first is not None
    assert (first.run, first.told, first.attempts, first.next_attempt_at) == (OTHER, None, 0, 13.0)
    run_tx.save_work(replace(first, told="verified", attempts=2, next_attempt_at=90.0))
    second = run_tx.due_work(Work.VERIFICATION, 20.0, 1e9)
    assert second is not None
    assert second.run == RUN
    run_tx.drop_work(second.id)
    assert run_tx.due_work(Work.VERIFICATION, 20.0, 1e9) is None
    again = run_tx.due_work(Work.VERIFICATION, 90.0, 1e9)
    assert again == replace(first, told="verified", attempts=2, next_attempt_at=90.0)
    ahead = run_tx.due_work(Work.VERIFICATION, 20.0, 69.0)
    assert ahead == again, "a clock that was set back puts nothing off for ever"
    run_tx.add_work(Work.ALERT, RUN, "{}", 7.0)
    alert = run_tx.due_work(Work.ALERT, 7.0, 1e9)
    assert alert is not None
    assert (alert.kind, alert.told) == (Work.ALERT, "{}")
    run_tx.drop_work(alert.id)
    run_tx.add_work(Work.ALERT, RUN, "{}", 7.0)
    other = run_tx.due_work(Work.ALERT, 7.0, 1e9)
    assert other is not None
    assert other.id > alert.id, "an id is never given out again"
