"""What is watched: numbers over the whole database, none of which reads a run or a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Double, and_, cast, func, select

from provenance.ports.values import AnchorState
from provenance.stores.sql.schema import (
    anchors,
    commits,
    ledger_entries,
    marks,
    parked,
    runs,
    summaries,
)
from provenance.stores.sql.session import Session

_ENDS = (AnchorState.FINAL, AnchorState.REPLACED, AnchorState.FAILED)


class FiguresPart(Session):
    """See :class:`provenance.ports.store.LedgerTx`."""

    def open_and_sealed(self) -> Mapping[str, int]:
        query = select(runs.c.state, func.count().label("number")).group_by(runs.c.state)
        return {row.state: row.number for row in self._read(query)}

    def dropped(self) -> tuple[int, int]:
        lost = summaries.c.dropped
        query = select(func.count(), func.coalesce(func.sum(cast(lost, Double)), 0.0))
        number, events = self._read(query.where(lost > 0)).one()
        return number, int(events)

    def parked_count(self) -> int:
        return int(self._read(select(func.count()).select_from(parked)).scalar_one())

    def oldest_anchors(self, network: str) -> Mapping[AnchorState, tuple[float, int, int]]:
        anchor = anchors.c
        query = select(
            anchor.state,
            func.min(anchor.updated_at),
            func.max(anchor.attempts),
            func.min(anchor.depth),
        ).where(anchor.network == network, anchor.state.in_(set(AnchorState) - set(_ENDS)))
        rows = self._read(query.group_by(anchor.state))
        return {state: (since, attempts, depth) for state, since, attempts, depth in rows}

    def newest_seals(self, count: int) -> Sequence[tuple[float, str]]:
        entry, mark = ledger_entries.c, marks.c
        newest = select(func.coalesce(func.max(entry["index"]), -1)).scalar_subquery()
        own = and_(mark.run == entry.run, mark.phase == entry.phase, mark.epoch == entry.epoch)
        query = (
            select(entry.created_at, func.max(mark.ts))
            .join(marks, own)
            .where(entry["index"] > newest - count)
            .group_by(entry["index"], entry.created_at)
        )
        return [(at, ts) for at, ts in self._read(query)]

    def commit_time(self, writer: str) -> float | None:
        return self._read(select(commits.c.at).where(commits.c.writer == writer)).scalar()

    def note_commit(self, writer: str, now: float) -> None:
        self._replace(commits, [{"writer": writer, "at": now}])
