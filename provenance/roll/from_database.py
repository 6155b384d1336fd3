"""The roll of a ledger, from its database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from provenance.errors import FormatError, IntegrityError
from provenance.formats.record import Kind, Record
from provenance.ports.listing import RunSummary, Wanted
from provenance.ports.store import LedgerTx
from provenance.roll.roll import Roll, RolledRun, with_records

Progress = Callable[[int, int], None]


def roll_of(
    tx: LedgerTx,
    size: int,
    now: float,
    lost_after_s: float,
    *,
    described: bool = True,
    progress: Progress = lambda done, total: None,
) -> Roll:
    """All runs of a database, and the first ``size`` entries of its ledger.

    Args:
        now, lost_after_s: As in :class:`~provenance.ports.listing.Wanted`.
        described: With data, configuration and seeds, which reads two records of each run.
        progress: Told how many of these were read, and of how many.

    Raises:
        StoreUnavailable
    """
    roots = tuple(tx.roots(0, size))
    own: dict[UUID, list[int]] = defaultdict(list)
    again: dict[UUID, list[int]] = defaultdict(list)
    for entry in tx.entries(end=size):
        own[entry.run].append(entry.index)
    for row in tx.outcomes(end=size):
        again[row.run].append(row.index)
    _, total = tx.list_runs(Wanted(now, lost_after_s, size=1))
    rows, _ = tx.list_runs(Wanted(now, lost_after_s, size=max(total, 1)))
    runs = [_rolled(summary, tuple(own[row.run]), tuple(again[row.run])) for row, summary in rows]
    if described:
        for done, item in enumerate(runs):
            runs[done] = _described(tx, item)
            progress(done + 1, total)
    runs.sort(key=lambda item: item.order)
    return Roll(len(roots), roots, tuple(runs))


def _rolled(summary: RunSummary, entries: tuple[int, ...], outcomes: tuple[int, ...]) -> RolledRun:
    name, numbers = summary.name, dict(summary.numbers)
    return RolledRun(summary.run, entries, summary.state, name, results=numbers, outcomes=outcomes)


def _described(tx: LedgerTx, item: RolledRun) -> RolledRun:
    records = []
    with suppress(IntegrityError):  # an archive that is gone; `doctor` names it
        for row in tx.records(item.run, (Kind.CONFIG, Kind.DATA_TRAIN)):
            with suppress(FormatError):
                records.append(Record.decode(row.data))
    return with_records(item, records)
