"""The runs of a database for people: with name, state, newest numbers and times."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any
from uuid import UUID

from provenance.evidence.story import RunState, state_of
from provenance.formats.record import Json, Record
from provenance.ports.listing import RunSummary
from provenance.ports.listing import Wanted as Wanted
from provenance.ports.store import LedgerTx
from provenance.ports.values import RunRow


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run in the list.

    Attributes:
        ending: How it ended, where it did.
        begun, seen: Unix seconds of its first and its last event, by the producers' clocks.
        epoch, step, parent, numbers, dropped: As in :class:`RunSummary`.
    """

    row: RunRow
    ending: RunState
    name: str | None
    team: str | None
    group: str | None
    tags: tuple[str, ...]
    begun: float
    seen: float
    epoch: int | None
    step: int | None
    parent: str | None
    numbers: Mapping[str, Json]
    dropped: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("name", "team", "group", "parent", "begun", "seen", "epoch", "step", "dropped")
        own = {name: getattr(self, name) for name in names}
        return {"tags": list(self.tags), "numbers": dict(self.numbers), **own}


def list_runs(tx: LedgerTx, wanted: Wanted) -> tuple[list[ListedRun], int]:
    """A page of runs, and how many there are on all pages."""
    rows, total = tx.list_runs(wanted)
    return [_listed(*row) for row in rows], total


def _listed(row: RunRow, summary: RunSummary) -> ListedRun:
    return ListedRun(
        row=row,
        ending=RunState(summary.state, summary.reason, summary.rank),
        name=summary.name,
        team=summary.team,
        group=summary.group,
        tags=summary.tags,
        begun=row.created_at if summary.begun is None else summary.begun,
        seen=row.created_at if summary.seen is None else summary.seen,
        epoch=summary.epoch,
        step=summary.step,
        parent=summary.parent,
        numbers=summary.numbers,
        dropped=summary.dropped,
    )


def ending_of(
    tx: LedgerTx, run: UUID, told: Collection[Record], now: float, lost_after_s: float
) -> RunState:
    """How a run ended; one that the database heard of a moment ago is not lost, whatever its
    trainer's clock says, nor is one that is held back."""
    heard = tx.last_ingest(run)
    quiet = heard is not None and now - heard >= lost_after_s and tx.held(run) is None
    return state_of(told, tx.entries(run), now, lost_after_s if quiet else inf)
