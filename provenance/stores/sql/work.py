"""Work that is due again and again, or until somebody took it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import Double, Integer, Null, cast, delete, insert, literal, or_, select, update

from provenance.ports.values import DueWork, Work
from provenance.stores.sql.schema import archived_runs, due_work, runs
from provenance.stores.sql.session import Session, values_in

_WORK: Final = values_in(DueWork, due_work)


class WorkPart(Session):
    """Rows of :class:`provenance.ports.values.DueWork`."""

    def add_work_of_sealed(self, kind: Work, after_s: float) -> None:
        of_kind = literal(kind, due_work.c.kind.type)
        known = select(due_work.c.id).where(
            due_work.c.run == runs.c.run, due_work.c.kind == of_kind
        )
        due_at = cast(runs.c.sealed_at + after_s, Double)
        added = select(of_kind, runs.c.run, Null(), cast(0, Integer), due_at).where(
            runs.c.state == "sealed", ~known.exists()
        )
        if kind is Work.ARCHIVE:
            added = added.where(runs.c.run.not_in(select(archived_runs.c.run)))
        columns = ["kind", "run", "told", "attempts", "next_attempt_at"]
        self._write(insert(due_work).from_select(columns, added))

    def add_work(self, kind: Work, run: UUID, told: str | None, at: float) -> None:
        row = {"kind": kind, "run": run, "told": told, "attempts": 0, "next_attempt_at": at}
        self._write(insert(due_work).values(row))

    def due_work(self, kind: Work, now: float, horizon_s: float) -> DueWork | None:
        at = due_work.c.next_attempt_at
        due = _WORK.where(due_work.c.kind == kind, or_(at <= now, at > now + horizon_s))
        return self._one(DueWork, due.order_by(at).limit(1))

    def save_work(self, row: DueWork) -> None:
        values = {name: getattr(row, name) for name in ("told", "attempts", "next_attempt_at")}
        self._write(update(due_work).where(due_work.c.id == row.id).values(values))

    def drop_work(self, id: int) -> None:
        self._write(delete(due_work).where(due_work.c.id == id))
