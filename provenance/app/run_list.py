"""The runs of a database for people: with name, state, newest numbers and times.

What the trainer states is read from a few records of each run that is shown, never from all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Any, Final
from uuid import UUID

from provenance.errors import FormatError
from provenance.evidence.lineage import parent_of
from provenance.evidence.story import LOST_AFTER_S, RunState, state_of
from provenance.formats.record import Json, Kind, Record
from provenance.ports.store import LedgerTx
from provenance.ports.values import RunRow, StoredRecord
from provenance.report.summary import leaves, newest_step, seconds_of, shown, tags_of

_TOLD_BY: Final = (Kind.CONFIG, Kind.NOTE, Kind.RESULTS, Kind.SEAL, Kind.RUN_END)
_NUMBERS: Final = 3
"""Of the results, or of the newest metrics."""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run in the list.

    Attributes:
        ending: How it ended, where it did.
        begun, seen: Unix seconds of its first and its last event, by the producers' clocks.
        epoch: The newest that has metrics.
        step: The newest, where no epoch has metrics.
        parent: The run that it says it continues.
        numbers: Of the results, or of the newest metrics; what is no number is a short text.
    """

    row: RunRow
    ending: RunState
    name: str | None
    group: str | None
    tags: tuple[str, ...]
    begun: float
    seen: float
    epoch: int | None
    step: int | None
    parent: str | None
    numbers: dict[str, Json]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("name", "group", "parent", "begun", "seen", "epoch", "step", "numbers")
        return {"tags": list(self.tags), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs, in which order: a text that is None takes all, ``tags`` those with each of them.
    Runs without a sign of life for ``lost_after_s`` before ``now`` (Unix seconds) are lost."""

    now: float
    lost_after_s: float = LOST_AFTER_S
    state: str | None = None
    name: str | None = None
    group: str | None = None
    tags: Collection[str] = ()
    sort: str = "created"
    page: int = 1
    size: int = 50


def list_runs(tx: LedgerTx, wanted: Wanted) -> tuple[list[ListedRun], int]:
    """A page of runs, the newest first (by name, state or group: in the order of the alphabet),
    and how many there are on all pages."""
    rows: Sequence[RunRow] = tx.runs()[::-1]
    first = (wanted.page - 1) * wanted.size
    plain = wanted.sort == "created" and not (
        wanted.state or wanted.name or wanted.group or wanted.tags
    )
    if plain:
        return [listed(tx, row, wanted) for row in rows[first : first + wanted.size]], len(rows)
    runs = [run for run in (listed(tx, row, wanted) for row in rows) if _fits(run, wanted)]
    if wanted.sort == "seen":
        runs.sort(key=lambda run: -run.seen)
    elif wanted.sort != "created":
        runs.sort(key=lambda run: _key(run, wanted.sort))
    return runs[first : first + wanted.size], len(runs)


def _key(run: ListedRun, sort: str) -> tuple[bool, str]:
    """Those without come last."""
    value = run.ending.line if sort == "state" else getattr(run, sort)
    return not value, str(value).lower()


def ending_of(
    tx: LedgerTx, run: UUID, told: Collection[Record], now: float, lost_after_s: float
) -> RunState:
    """How a run ended; one that the database heard of a moment ago is not lost, whatever its
    trainer's clock says."""
    heard = tx.last_ingest(run)
    quiet = heard is not None and now - heard >= lost_after_s
    return state_of(told, tx.entries(run), now, lost_after_s if quiet else inf)


def _fits(run: ListedRun, wanted: Wanted) -> bool:
    text = (wanted.name or "").lower()
    return (
        (wanted.state is None or run.ending.state == wanted.state)
        and (wanted.group is None or run.group == wanted.group)
        and set(wanted.tags) <= set(run.tags)
        and (text in (run.name or "").lower() or text in str(run.row.run))
    )


def listed(tx: LedgerTx, row: RunRow, wanted: Wanted) -> ListedRun:
    """One run as the list has it."""
    told = list(_decoded(tx.records(row.run, _TOLD_BY)))
    newest = _newest(tx, row.run, Kind.METRICS)
    step, of_step = newest_step([] if newest else [_newest(tx, row.run, Kind.STEPS)])
    known = told if newest is None else [*told, newest]
    config = next((record.body for record in told if record.kind is Kind.CONFIG), {})
    results = next((record.body for record in told if record.kind is Kind.RESULTS), {})
    numbers = results.get("results") or (newest.body.get("metrics") if newest else of_step)
    times = list[float]()
    for ts in (*(tx.span(row.run) or ()), *(record.ts for record in known)):
        with suppress(ValueError):  # a damaged row
            times.append(seconds_of(ts))
    times = times or [row.created_at]
    return ListedRun(
        row=row,
        ending=ending_of(tx, row.run, known, wanted.now, wanted.lost_after_s),
        name=_text(config.get("name")),
        group=_text(config.get("group")),
        tags=tuple(sorted({tag for record in told for tag in tags_of(record)})),
        begun=min(times),
        seen=max(times),
        epoch=newest.epoch if newest else None,
        step=step,
        parent=parent_of(told),
        numbers=dict(_plain(islice(leaves(numbers), _NUMBERS)))
        if isinstance(numbers, dict)
        else {},
    )


def _newest(tx: LedgerTx, run: UUID, kind: Kind) -> Record | None:
    return next(_decoded(filter(None, [tx.newest_record(run, kind)])), None)


def _plain(values: Iterable[tuple[str, Json]]) -> Iterator[tuple[str, Json]]:
    for name, value in values:
        yield name, value if isinstance(value, int | float | None) else shown(value)


def _decoded(records: Iterable[StoredRecord]) -> Iterator[Record]:
    for row in records:
        with suppress(FormatError):  # `provenance verify` names it
            yield Record.decode(row.data)


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None
