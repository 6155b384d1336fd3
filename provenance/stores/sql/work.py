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
from provenance.stores.sql.schema import due_work, runs
from provenance.stores.sql.session import Session, values_in

_WORK: Final = values_in(DueWork, due_work)


class WorkPart(Session):
    """Rows of :class:`provenance.ports.values.DueWork`."""

    def add_report(self, run: UUID, index: int, now: float) -> None:
        self._add(Work.REPORT, run, now, index=index)

    def add_verifications(self, every_s: float) -> None:
        kind = literal(Work.VERIFICATION, due_work.c.kind.type)
        known = select(due_work.c.id).where(due_work.c.run == runs.c.run, due_work.c.kind == kind)
        due_at = cast(runs.c.sealed_at + every_s, Double)
        added = select(kind, runs.c.run, Null(), cast(0, Integer), due_at).where(
            runs.c.state == "sealed", ~known.exists()
        )
        columns = ["kind", "run", "told", "attempts", "next_attempt_at"]
        self._write(insert(due_work).from_select(columns, added))

    def add_alert(self, run: UUID, body: str, now: float) -> None:
        self._add(Work.ALERT, run, now, told=body)

    def _add(self, kind: Work, run: UUID, now: float, **rest: int | str) -> None:
        row = {"kind": kind, "run": run, "attempts": 0, "next_attempt_at": now, **rest}
        self._write(insert(due_work).values(row))

    def due_work(self, kind: Work, now: float, horizon_s: float, size: int = 0) -> DueWork | None:
        work = due_work.c
        at = work.next_attempt_at
        come = or_(at <= now, at > now + horizon_s)
        due = _WORK.where(work.kind == kind, come, func.coalesce(work.index, -1) < size)
        return self._one(DueWork, due.order_by(work.attempts, at).limit(1))

    def work_count(self, kind: Work) -> int:
        query = select(func.count()).where(due_work.c.kind == kind)
        return int(self._read(query).scalar_one())

    def save_work(self, row: DueWork) -> None:
        values = {name: getattr(row, name) for name in ("told", "attempts", "next_attempt_at")}
        self._write(update(due_work).where(due_work.c.id == row.id).values(values))

    def drop_work(self, id: int) -> None:
        self._write(delete(due_work).where(due_work.c.id == id))
