"""LedgerStore: work that is due until it is done."""

from __future__ import annotations

from dataclasses import replace

from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import ArchivedRun, DueWork, Work
from tests.support.ledger_values import KEY, OTHER, RUN


def test_work_is_due_in_order_until_it_is_dropped(run_tx: LedgerTx) -> None:
    run_tx.add_work_of_sealed(Work.VERIFICATION, 10.0, 1e9)
    assert run_tx.due_work(Work.VERIFICATION, 1e9, 1e9) is None, "no run is sealed"
    for run, at in ((RUN, 5.0), (OTHER, 3.0)):
        run_tx.seal_run(run, at, None)
    run_tx.add_work_of_sealed(Work.VERIFICATION, 10.0, 12.9)
    assert run_tx.due_work(Work.VERIFICATION, 1e9, 1e9) is None, "its time has not come"
    for _ in range(2):
        run_tx.add_work_of_sealed(Work.VERIFICATION, 10.0, 15.0)
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
    run_tx.add_work(Work.ALERT, RUN, 7.0, told="{}")
    alert = run_tx.due_work(Work.ALERT, 7.0, 1e9)
    assert alert is not None
    assert (alert.kind, alert.told) == (Work.ALERT, "{}")
    run_tx.drop_work(alert.id)
    run_tx.add_work(Work.ALERT, RUN, 7.0, told="{}")
    other = run_tx.due_work(Work.ALERT, 7.0, 1e9)
    assert other is not None
    assert other.id > alert.id, "an id is never given out again"


def test_what_is_archived_is_not_to_be_archived(store: LedgerStore) -> None:
    with store.transaction() as tx:
        for run in (RUN, OTHER):
            tx.add_run(run, KEY, 1.0)
            tx.seal_run(run, 1.0, None)
    with store.transaction() as tx:
        row = ArchivedRun(RUN, b"d" * 32, 5, 0, 7.0)
        tx.archive_run(row)
        assert (tx.archived(RUN), tx.archived(OTHER)) == (row, None)
        assert tx.archived_runs() == [row]
        tx.add_work_of_sealed(Work.ARCHIVE, 10.0, 11.0)
        assert tx.work_count(Work.ARCHIVE) == 1
        due = tx.due_work(Work.ARCHIVE, 11.0, 1e9)
    assert due is not None
    assert due.run == OTHER


def test_what_was_tried_least_comes_first_and_a_report_waits_for_its_entry(
    run_tx: LedgerTx,
) -> None:
    def due(size: int, now: float) -> DueWork | None:
        return run_tx.due_work(Work.REPORT, now, 100.0, size)

    run_tx.add_work(Work.REPORT, OTHER, 0.0, index=2)
    again = due(9, 0.0)
    assert again is not None
    assert (again.run, again.index) == (OTHER, 2)
    again = replace(again, attempts=1, next_attempt_at=500.0)
    run_tx.save_work(again)
    run_tx.add_work(Work.REPORT, RUN, 501.0, index=1)
    assert (run_tx.work_count(Work.REPORT), run_tx.work_count(Work.ALERT)) == (2, 0)
    assert due(9, 500.0) == again
    first = due(9, 501.0)
    assert first is not None
    assert first.run == RUN
    assert due(1, 501.0) is None
    run_tx.drop_work(first.id)
    assert due(9, 501.0) == again


def test_what_was_tried_most_is_found_by_kind_and_run(run_tx: LedgerTx) -> None:
    for run, kind in ((RUN, Work.ATTESTATION), (OTHER, Work.ATTESTATION), (OTHER, Work.ALERT)):
        run_tx.add_work(kind, run, 9.0)
    first, last = (run_tx.most_tried(Work.ATTESTATION, run) for run in (RUN, OTHER))
    assert first is not None
    assert last is not None
    assert (first.run, last.run) == (RUN, OTHER)
    run_tx.save_work(tried := replace(last, attempts=3, next_attempt_at=1e9))
    assert run_tx.most_tried(Work.ATTESTATION) == tried
    assert run_tx.most_tried(Work.ATTESTATION, RUN) == first
    assert run_tx.most_tried(Work.ALERT, RUN) is None
