"""Work that is due again and again, or until somebody took it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import (
    Double,
    Integer,
    Null,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from provenance.ports.values import DueWork, Work
from provenance.stores.sql.schema import archived_runs, due_work, runs
from provenance.stores.sql.session import Session, values_in

_WORK: Final = values_in(DueWork, due_work)


class WorkPart(Session):
    """Rows of :class:`provenance.ports.values.DueWork`."""

    def add_work_of_sealed(self, kind: Work, after_s: float, now: float) -> None:
        of_kind = literal(kind, due_work.c.kind.type)
        own = (due_work.c.run == runs.c.run, due_work.c.kind == of_kind)
        due_at = cast(runs.c.sealed_at + after_s, Double)
        added = select(of_kind, runs.c.run, Null(), cast(0, Integer), due_at).where(
            runs.c.state == "sealed",
            runs.c.sealed_at <= now - after_s,
            ~select(due_work.c.id).where(*own).exists(),
        )
        if kind is Work.ARCHIVE:
            added = added.where(runs.c.run.not_in(select(archived_runs.c.run)))
        columns = ["kind", "run", "told", "attempts", "next_attempt_at"]
        self._write(insert(due_work).from_select(columns, added))

    def add_work(
        self,
        kind: Work,
        run: UUID,
        at: float,
        *,
        told: str | None = None,
        index: int | None = None,
    ) -> None:
        row = {"kind": kind, "run": run, "told": told, "index": index}
        row |= {"attempts": 0, "next_attempt_at": at}
        self._write(insert(due_work).values(row))

    def due_work(self, kind: Work, now: float, horizon_s: float, size: int = 0) -> DueWork | None:
        work = due_work.c
        at = work.next_attempt_at
        come = or_(at <= now, at > now + horizon_s)
        due = _WORK.where(work.kind == kind, come, func.coalesce(work.index, -1) < size)
        return self._one(DueWork, due.order_by(work.attempts, at).limit(1))

    def most_tried(self, kind: Work, run: UUID | None = None) -> DueWork | None:
        work = due_work.c
        rows = _WORK.where(work.kind == kind).order_by(work.attempts.desc(), work.id)
        return self._one(DueWork, (rows if run is None else rows.where(work.run == run)).limit(1))

    def work_count(self, kind: Work) -> int:
        query = select(func.count()).where(due_work.c.kind == kind)
        return int(self._read(query).scalar_one())

    def save_work(self, row: DueWork) -> None:
        values = {name: getattr(row, name) for name in ("told", "attempts", "next_attempt_at")}
        self._write(update(due_work).where(due_work.c.id == row.id).values(values))

    def drop_work(self, id: int) -> None:
        self._write(delete(due_work).where(due_work.c.id == id))
